/* SPDX-License-Identifier: MIT */
/*
 * speckv-emu: the card model as a process. main.c: options, main loop; state.c: state files;
 * peers.c: sockets, admission and scheduling; function.c: one connection is one PCI function;
 * control.c: commands to the emulator itself (status, faults, stop); driver.c: stands in for the
 * driver of a real card.
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
/* of those, the limit over `io`: the rest are reserved for administrators */
#define EMU_IO_FUNCTIONS 56
#define EMU_STRANGERS 48 /* of those, limit for users other than root and the card's owner */
#define EMU_USER 32 /* of those, limit for each such user */
#define EMU_PEERS 192 /* connections, including those before their greeting */
#define EMU_UNGREETED 64 /* of one user; one more evicts the oldest */
#define EMU_QUEUE_PAIRS 16 /* per function: one doorbell page */
#define EMU_CONTROLS 16
#define EMU_ANSWER_BYTES 8192 /* of a control command */

struct emulator;

/* One connection. */
struct emu_function {
	struct emulator *emulator;
	struct emu_engine *engine; /* the emulator's */
	struct vu_connection *connection;
	struct vu_user *user;
	int number; /* of the card's function; -1: before the greeting */
	bool admin;
	bool ready; /* may have messages to serve */
	bool unheard; /* ready, and not served since */
	bool held; /* last argument of hold() of the engine */
	short events; /* polled for */
	uint64_t opened; /* sequence number of the connection */
	int64_t heard_ms;
	int doorbell_fd; /* memfd as large as BAR0; its last half is the doorbell pages */
	uint8_t *doorbells;
	uint8_t config[EMU_CONFIG_BYTES], config_writable[256];
	uint8_t msix[EMU_BAR4_BYTES];
	/* answer to the last call of SPECKV_DRIVER_REGION */
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
	int64_t look_ms; /* time of the next check for expired peers */
	int64_t served_ms; /* end of the last turn */
	int64_t late_ms; /* time since the last check in which this process did not serve */
	unsigned int greet_next; /* slot from which the next peer before its greeting is served */
	int epoll;
	int listeners[3]; /* admin, I/O, control */
	struct emu_line {
		int fd; /* -1: none */
		int64_t heard_ms;
	} controls[EMU_CONTROLS];
	int memory_error, flash_error; /* -EFAULT: the backing of the file was lost (guard.h) */
	bool memory_told; /* the card has been stopped for it */
	bool stop;
	/*
	 * power cut: the process kills itself when this many more bytes of flash were written or
	 * erased
	 */
	bool cut;
	uint64_t cut_bytes;
	uint64_t started_ns;
};

extern const struct speckv_card_ops emu_card_ops;
/*
 * Open a connection, without a function until its greeting. NULL: out of memory; the socket is
 * closed.
 */
struct emu_function *emu_function_open(struct emulator *emulator, int fd, bool admin,
	struct vu_user *user);
void emu_function_close(struct emu_function *function);
/* After a reboot of the card: update the identification to the running image. */
void emu_function_identify(struct emu_function *function);

/* Create the sockets in the card's folder, and set limits that depend on the machine. */
void emu_peers_begin(struct emulator *emulator, const char *folder, int folder_fd);
/* Wait at most `timeout_ms` for an event, then serve peers for some tens of microseconds. */
void emu_peers_serve(struct emulator *emulator, int timeout_ms);
/* Earliest deadline of a peer on CLOCK_MONOTONIC; INT64_MAX: none. */
int64_t emu_peers_deadline_ms(const struct emulator *emulator);
void emu_peers_end(struct emulator *emulator);
/* May this connection have a function? 0, or a negative errno. */
int emu_peers_admit(struct emulator *emulator, const struct emu_function *function);

/* Read the credentials of a socket's peer. */
void emu_driver_peer(struct emu_function *function, int fd);
/* Handle a call of SPECKV_DRIVER_REGION; the answer goes to function->driver. */
void emu_driver_call(struct emu_function *function, const void *request, uint32_t bytes);

/* Handle one line of a control connection; writes a line of JSON to `answer`. */
void emu_control(struct emulator *emulator, const char *line, char *answer, unsigned int bytes);
/* CLOCK_BOOTTIME: intervals. emu_wall_ns(): timestamps in logs. */
uint64_t emu_now_ns(void *arg);
uint64_t emu_wall_ns(void *arg);

/* Files made from now on, in this folder, are removed if the start fails. */
void emu_state_begin(int folder_fd);
/* Register a file made by this start. */
void emu_made(const char *name);
/* Started: keep the files. */
void emu_state_keep(void);
void emu_state_memory(struct emulator *emulator, const char *folder, int folder_fd);
/*
 * `flash` appears with its keys already in it. Its space is reserved, also if an existing file is
 * sparse.
 */
void emu_state_flash(struct emulator *emulator, const char *folder, int folder_fd,
	const struct speckv_card_key *keys, unsigned int key_count);
/*
 * The card's uuid, as text in a file beside its memory, for users who may not connect to the card.
 * Created once.
 */
void emu_state_uuid(const char *folder, int folder_fd, uint8_t uuid[16]);
__attribute__((noreturn)) void emu_die(const char *what, const char *path, int error);
/* No space in a file system: report how much is needed and how much is free. */
__attribute__((noreturn)) void emu_no_room(const char *path, uint64_t bytes);

#endif
