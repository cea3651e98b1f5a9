/* SPDX-License-Identifier: MIT */
/*
 * speckv-emu: the card model as a process. main.c: options, state files, the loop; peers.c:
 * sockets, who is let in and when it is whose turn; function.c: one connection is one PCI function;
 * control.c: the emulator's own commands (status, faults, stop), which no card has; driver.c:
 * stands in for the driver that a real card has in front of it.
 */
#ifndef SPECKV_EMULATOR_EMULATOR_H
#define SPECKV_EMULATOR_EMULATOR_H

#include "card/engine.h"
#include "vfio_user.h"

#define EMU_BAR0 0
#define EMU_BAR2 2
#define EMU_BAR4 4
#define EMU_BAR4_BYTES 0x1000u
#define EMU_CONFIG_BYTES 0x1000u
#define EMU_DOORBELLS 0x10000u /* offset in BAR0 */
#define EMU_FUNCTIONS 64
/* of those, at most so many over `io`: the rest are left for who administers the card */
#define EMU_IO_FUNCTIONS 56
#define EMU_STRANGERS 48 /* of those, of users other than root and the card's owner */
#define EMU_USER 32 /* of those, of one of them */
#define EMU_PEERS 192 /* connections, those that have not greeted yet among them */
#define EMU_UNGREETED 64 /* of one user: with one more the oldest of them goes */
#define EMU_QUEUE_PAIRS 16 /* of one function: one doorbell page */
#define EMU_CONTROLS 16
#define EMU_ANSWER_BYTES 8192 /* of a control command */

struct emulator;

/* One connection. */
struct emu_function {
	struct emulator *emulator;
	struct emu_engine *engine; /* the emulator's */
	struct vu_connection *connection;
	struct vu_user *user;
	int number; /* of the card's function; -1: it has not greeted yet */
	bool admin;
	bool ready; /* there may be something to serve */
	bool unheard; /* there is, and it was not its turn since */
	bool held; /* as the engine has it: hold() */
	short events; /* that are waited for */
	uint64_t opened; /* in the order in which they came */
	int64_t heard_ms;
	int doorbell_fd; /* memfd as large as BAR0; its last half is the doorbell pages */
	uint8_t *doorbells;
	uint8_t config[EMU_CONFIG_BYTES], config_writable[256];
	uint8_t msix[EMU_BAR4_BYTES];
	/* the answer to the last call of SPECKV_DRIVER_REGION */
	uint8_t driver[SPECKV_DRIVER_BYTES];
	uint32_t uid, gid, groups[256];
	unsigned int group_count;
};

struct emulator {
	struct emu_engine *engine;
	struct speckv_card_config config;
	char name[64];
	int memory_fd, flash_fd;
	uint8_t *memory, *flash;
	struct emu_function *peers[EMU_PEERS];
	struct emu_function *functions[EMU_FUNCTIONS]; /* by number */
	struct vu_user users[EMU_PEERS];
	uint64_t opened;
	int64_t look_ms; /* when the next look is at who takes too long */
	int64_t served_ms; /* when the last turn ended */
	int64_t late_ms; /* how long peers waited for this process since the last look */
	unsigned int greet_next; /* slot of the next peer that has not greeted yet and is served */
	int epoll;
	int listeners[3]; /* admin, I/O, control */
	struct emu_line {
		int fd; /* -1: none */
		int64_t heard_ms;
	} controls[EMU_CONTROLS];
	int memory_error, flash_error; /* what was touched there could not be had */
	bool memory_told; /* the card has stopped for it */
	bool stop;
	/*
	 * the process ends, as at a loss of power, when this many more bytes of flash were written
	 * or erased
	 */
	bool cut;
	uint64_t cut_bytes;
	uint64_t started_ns;
};

extern const struct speckv_card_ops emu_card_ops;
/* A connection, not greeted yet: it has no function. NULL: out of memory; the socket is closed. */
struct emu_function *emu_function_open(struct emulator *emulator, int fd, bool admin,
	struct vu_user *user);
void emu_function_close(struct emu_function *function);
/* After a reboot of the card: identification follows the image that runs. */
void emu_function_identify(struct emu_function *function);

/* Sockets in the card's folder, and limits that follow from the machine. */
void emu_peers_begin(struct emulator *emulator, const char *folder, int folder_fd);
/* Serve peers for some tens of microseconds, after waiting for an event for at most so long. */
void emu_peers_serve(struct emulator *emulator, int timeout_ms);
/* When the next peer has taken too long, on CLOCK_MONOTONIC; INT64_MAX: none. */
int64_t emu_peers_deadline_ms(const struct emulator *emulator);
void emu_peers_end(struct emulator *emulator);
/* May this connection have a function? 0, or a negative errno. */
int emu_peers_admit(struct emulator *emulator, const struct emu_function *function);

/* Who is the peer of this socket? */
void emu_driver_peer(struct emu_function *function, int fd);
/* A call of SPECKV_DRIVER_REGION; the answer lies in function->driver. */
void emu_driver_call(struct emu_function *function, const void *request, uint32_t bytes);

/* Handle one line of a control connection; writes a line of JSON to `answer`. */
void emu_control(struct emulator *emulator, const char *line, char *answer, unsigned int bytes);
/* CLOCK_BOOTTIME: intervals. emu_wall_ns(): what people read. */
uint64_t emu_now_ns(void *arg);
uint64_t emu_wall_ns(void *arg);
/* This start has made a file in the card's folder: it goes again where the start fails. */
void emu_made(const char *name);
__attribute__((noreturn)) void emu_die(const char *what, const char *path, int error);

#endif
