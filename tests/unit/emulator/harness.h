/* SPDX-License-Identifier: MIT */
/* An emulated card of a test's own: a process, its folder, and connections to it. */
#ifndef TESTS_EMULATOR_HARNESS_H
#define TESTS_EMULATOR_HARNESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../check.h"
#include "transport/transport.h"

struct card_process {
	char folder[128];
	pid_t pid;
};

/*
 * Start speckv-emu (argv[1] of the test) in a new folder, or again in the one it had; wait until it
 * is ready.
 */
void card_start(struct card_process *card, const char *program);
/* End it, and see that it ended so: by this signal, or, asked to by SIGTERM, with status 0. */
void card_kill(struct card_process *card, int signal);
/* It has not ended. */
void card_lives(const struct card_process *card);
/* Entries of its /proc/PID/fd: its open descriptors, and a few more. */
unsigned int card_descriptors(const struct card_process *card);
/* Remove the folder. */
void card_clean(struct card_process *card);
struct transport *card_connect(const struct card_process *card, const char *socket,
	size_t arena_bytes);

/* A connection with a privileged queue and an arena part for its data. */
struct admin {
	struct transport *transport;
	struct queue queue;
	uint8_t *data; /* 64 KiB */
};
void admin_open(struct admin *admin, const struct card_process *card);
void admin_close(struct admin *admin);
/* Make a raw pool of 64 KiB blocks; its number. */
unsigned int admin_create_pool(struct admin *admin, const char *name, uint64_t capacity_bytes,
	uint8_t uuid[16]);
void admin_grant(struct admin *admin, unsigned int pool, const uint8_t uuid[16],
	unsigned int function, uint32_t rights);
/* Number of the pool of this name, or 0. */
unsigned int admin_find_pool(struct admin *admin, const char *name);

/* An unprivileged connection with one queue pair and a registered buffer. */
struct io {
	struct transport *transport;
	struct queue queue;
	unsigned int function;
	uint8_t *buffer; /* buffer 0 of the table: IO_BUFFER_BYTES, for blocks */
	struct speckv_block_identity *identity; /* buffer 1 */
};
#define IO_BUFFER_BYTES (4u << 20)
#define BLOCK_BYTES 65536u
void io_open(struct io *io, const struct card_process *card);
/* The same; false: the card does not let it in. */
bool io_try(struct io *io, const struct card_process *card);
void io_close(struct io *io);
/* Write block number `n` (contents follow from n) at a pool's page run; status. */
uint16_t io_write(struct io *io, unsigned int pool, uint64_t n, uint64_t address,
	uint64_t generation);
/* Read it back and compare: status; wrong bytes end the test. */
uint16_t io_read(struct io *io, unsigned int pool, uint64_t n, uint64_t address,
	uint64_t generation);

#endif
