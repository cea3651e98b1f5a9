/* SPDX-License-Identifier: MIT */
/* State of a resize, shared by resize.c, resize_places.c and resize_move.c. */
#ifndef SPECKV_CLIENT_RESIZE_H
#define SPECKV_CLIENT_RESIZE_H

#include "admin.h"

#define PATIENCE_NS 2000000000ull /* without progress */

struct job {
	struct speckv_device *dev;
	struct speckv_pool *pool;
	const char *name;
	uint64_t from, to; /* pages */
	bool evict, dry_run;
	/*
	 * a dead manager left a shrink, undone before this one begins: a dry run anticipates that
	 */
	bool undone;
	bool held; /* the resize lock */
	speckv_progress_cb progress;
	void *arg;
};

/* Destination of a run in a shrink. */
struct place {
	uint64_t page, to;
	uint32_t pages;
};

/* -EBUSY, text set: a client holds the run of this page-map word. */
int busy_above(struct job *job, uint64_t word);
/* Wait for claims above the mark to end: puts do, allocations do not. 0, or -EBUSY. */
int claims_end(struct job *job);
/*
 * Plan a place below the mark for each block above it: longest first, best fit. Without eviction
 * all blocks need one, so that a refused shrink has moved nothing. 0, -ENOSPC or -ENOMEM, text set.
 */
int places_below(struct job *job, struct place **places, size_t *n);

/*
 * Copy a block to a run below the new end, under its own key, and switch over. `place`: its planned
 * place; -ENOSPC if no longer free.
 */
int move_block(struct job *job, uint64_t page, const struct place *place);
int drop_block(struct job *job, uint64_t page);

#endif
