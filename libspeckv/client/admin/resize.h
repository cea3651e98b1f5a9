/* SPDX-License-Identifier: MIT */
/* A resize on its way, between resize.c, resize_places.c and resize_move.c. */
#ifndef SPECKV_CLIENT_RESIZE_H
#define SPECKV_CLIENT_RESIZE_H

#include "admin.h"

#define PATIENCE_NS 2000000000ull /* without getting on */

struct job {
	struct speckv_device *dev;
	struct speckv_pool *pool;
	const char *name;
	uint64_t from, to; /* pages */
	bool evict, dry_run;
	/*
	 * a dead manager left a shrink, which is undone before this one begins: dry runs reckon
	 * with it
	 */
	bool undone;
	bool held; /* the claim to the size */
	speckv_progress_cb progress;
	void *arg;
};

/* Where a run goes in a shrink. */
struct place {
	uint64_t page, to;
	uint32_t pages;
};

/* That a client holds what this word of the page map says: -EBUSY, text set. */
int busy_above(struct job *job, uint64_t word);
/*
 * Pages above the mark that clients hold: puts under way end by themselves, allocations do not. 0,
 * or -EBUSY.
 */
int claims_end(struct job *job);
/*
 * A place below the mark for each block above it: the longest first, each in the shortest free run
 * that holds it. A shrink that does not evict needs all of them, and follows them, so that one that
 * is refused has moved nothing. 0, -ENOSPC or -ENOMEM, text set.
 */
int places_below(struct job *job, struct place **places, size_t *n);

/*
 * Copy a block to a run below the new end, under its own key, and switch over. `place`: where it is
 * to go, if that is still free.
 */
int move_block(struct job *job, uint64_t page, const struct place *place);
int drop_block(struct job *job, uint64_t page);

#endif
