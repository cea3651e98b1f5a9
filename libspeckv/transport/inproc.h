/* SPDX-License-Identifier: MIT */
/*
 * A card's engine in this process: registers are calls, and the engine runs when software looks for
 * what it did. For tests and as the oracle's side of the RTL; not in the shared library. Threads:
 * one at a time in an engine and all of its transports.
 */
#ifndef SPECKV_TRANSPORT_INPROC_H
#define SPECKV_TRANSPORT_INPROC_H

#include "card/engine.h"
#include "transport.h"

#define INPROC_FUNCTIONS 64

/* What the functions of an engine reach of host memory: a window each, of their own addresses. */
struct inproc_host {
	struct inproc_window {
		uint8_t *at;
		uint64_t address, bytes; /* as the function names it; 0 bytes: it reaches nothing */
	} window[INPROC_FUNCTIONS];
	uint64_t outside; /* accesses outside of a function's window: refused */
};

/* Host memory of a function. NULL, counted: not all of it lies in its window. */
void *inproc_reach(struct inproc_host *host, unsigned int function, uint64_t address,
	uint64_t bytes);
/* For struct speckv_card_ops whose argument is a struct inproc_host. -EFAULT: outside. */
int inproc_dma_read(void *host, unsigned int function, uint64_t address, void *to, uint64_t bytes);
int inproc_dma_write(void *host, unsigned int function, uint64_t address, const void *from,
	uint64_t bytes);
int inproc_dma_publish(void *host, unsigned int function, uint64_t address, uint16_t value);

/*
 * Add a function to the engine, with an arena of this size as its window on `host`, which the
 * engine's DMA goes to. The transport's doorbells are register writes, and its driver() answers
 * INFO, POOL_OPEN (of every pool, to every caller) and POOL_CLOSE. The engine outlives it. Errors:
 * those of function_add() in card/engine.h, -EUSERS beyond INPROC_FUNCTIONS too, -ENOMEM.
 */
int transport_open_inproc(struct emu_engine *engine, struct inproc_host *host, bool admin,
	unsigned int queue_pairs, size_t arena_bytes, struct transport **out);
/* The number of its function. */
unsigned int inproc_function(const struct transport *transport);

#endif
