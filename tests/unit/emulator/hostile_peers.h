/* SPDX-License-Identifier: MIT */
/* Hostile peers of every kind that vfio-user allows, and their tools. */
#ifndef TESTS_EMULATOR_HOSTILE_PEERS_H
#define TESTS_EMULATOR_HOSTILE_PEERS_H

#include "harness.h"

enum {
	VERSION = 1,
	DMA_MAP,
	DMA_UNMAP,
	GET_INFO,
	GET_REGION,
	GET_REGION_FDS,
	GET_IRQ,
	SET_IRQS,
	REGION_READ,
	REGION_WRITE,
	DMA_READ,
	DMA_WRITE,
	RESET,
	DIRTY_PAGES
};

struct hostile_header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

/* The card's folder, and a pool that the hostile ones share. */
extern char hostile_folder[128];
extern unsigned int hostile_pool;
extern uint8_t hostile_uuid[16];

/* Peer n: it goes on until it is killed. */
void hostile_peer(int n);
/* Which kind peer n is of. */
int hostile_kind(int n);

/* A peer's tools: every call may fail, for the card may have hung up. */
double hostile_now(void);
void hostile_nap_ms(long ms);
int hostile_dial(const char *name);
bool hostile_send_fds(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes,
	const int *fds, unsigned int count);
bool hostile_send(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes);
bool hostile_receive(int fd, struct hostile_header *header, uint8_t *body, size_t room);
/* The reply to a request; messages of the card's own that come before it are left unanswered. */
bool hostile_ask(int fd, unsigned int command, const void *body, size_t bytes, const int *fds,
	unsigned int count);
int hostile_greeted(void);
int hostile_memory(off_t bytes, bool sealed);
bool hostile_map(int fd, uint64_t address, uint64_t bytes, int memory_fd);
bool hostile_write32(int fd, uint64_t offset, uint32_t value, uint32_t flags);
/* Queue pairs whose rings lie at `base`; `entries` of the submission ring are said to be there. */
bool hostile_queues(int fd, unsigned int pairs, uint64_t base, uint32_t entries);
void hostile_drain(int fd);

#endif
