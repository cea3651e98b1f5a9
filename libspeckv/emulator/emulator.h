/* SPDX-License-Identifier: MIT */
/* speckv-emu: the card model as a process. main.c: options, state files, sockets, the loop; function.c: one connection is one
 * PCI function; control.c: the emulator's own commands (status, faults, stop), which no card has; driver.c: stands in for
 * the driver that a real card has in front of it. */
#ifndef SPECKV_EMULATOR_EMULATOR_H
#define SPECKV_EMULATOR_EMULATOR_H

#include "card/card.h"
#include "vfio_user.h"

#define EMU_BAR0 0
#define EMU_BAR2 2
#define EMU_BAR4 4
#define EMU_BAR4_BYTES 0x1000u
#define EMU_CONFIG_BYTES 0x1000u
#define EMU_DOORBELLS 0x10000u /* offset in BAR0 */
#define EMU_FUNCTIONS 64
#define EMU_QUEUE_PAIRS 16 /* of one function: one doorbell page */
#define EMU_CONTROLS 8
#define EMU_ANSWER_BYTES 8192 /* of a control command */

struct emulator;

/* One connection. */
struct emu_function {
	struct emulator *emulator;
	struct vu_connection *connection;
	int number; /* of the card's function; -1: none */
	bool admin;
	int doorbell_fd; /* memfd as large as BAR0; its last half is the doorbell pages */
	uint8_t *doorbells;
	uint8_t config[EMU_CONFIG_BYTES], config_writable[256];
	uint8_t msix[EMU_BAR4_BYTES];
	uint8_t driver[SPECKV_DRIVER_BYTES]; /* the answer to the last call of SPECKV_DRIVER_REGION */
	uint32_t uid, gid, groups[256];
	unsigned int group_count;
};

struct emulator {
	struct speckv_card *card;
	struct speckv_card_config config;
	char name[64];
	int memory_fd, flash_fd;
	uint8_t *memory, *flash;
	struct emu_function *functions[EMU_FUNCTIONS];
	int listeners[3]; /* admin, I/O, control */
	int controls[EMU_CONTROLS];
	bool stop;
	bool cut;           /* the process ends, as at a loss of power, when this many more bytes of flash were written or erased */
	uint64_t cut_bytes;
	uint64_t started_ns;
};

extern const struct speckv_card_ops emu_card_ops;
/* Serve a connection: adds a function to the card. NULL: refused (limits, memory); the socket is closed. */
struct emu_function *emu_function_open(struct emulator *emulator, int fd, bool admin);
void emu_function_close(struct emu_function *function);
/* After a reboot of the card: identification follows the image that runs. */
void emu_function_identify(struct emu_function *function);
struct emu_function *emu_function_of(struct emulator *emulator, unsigned int number);

/* Who is the peer of this socket? */
void emu_driver_peer(struct emu_function *function, int fd);
/* A call of SPECKV_DRIVER_REGION; the answer lies in function->driver. */
void emu_driver_call(struct emu_function *function, const void *request, uint32_t bytes);

/* Handle one line of a control connection; writes a line of JSON to `answer`. */
void emu_control(struct emulator *emulator, const char *line, char *answer, unsigned int bytes);
uint64_t emu_now_ns(void *arg);

#endif
