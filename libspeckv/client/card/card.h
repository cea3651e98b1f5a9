/* SPDX-License-Identifier: MIT */
/*
 * A card from its administrator's side: connection by device name, commands over the privileged
 * queue pair. Internal to libspeckv; the public interface is <speckv/card.h>.
 */
#ifndef SPECKV_CLIENT_CARD_H
#define SPECKV_CLIENT_CARD_H

#include <stddef.h>
#include <stdint.h>

#include <speckv/base.h>

#include "base/folder.h"
#include "base/fork.h"
#include "transport/scheme.h"

#define CARD_DATA_BYTES (256u << 10) /* most bytes of one command's data, in or out */
#define CARD_PATIENCE_NS 10000000000ull

/*
 * transport_open(), and a check of the register map. Errors: those of transport_open(),
 * -EPROTONOSUPPORT (register map of another major version), -ETIMEDOUT.
 */
int card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out);

/* -EIO, with cause and remedy in the text, if the card has stopped on a fatal error; else 0. */
int card_stopped(struct speckv_ctx *ctx, const char *device_name, struct transport *transport);

/* The privileged queue pair. Threads: any; one command at a time. */
struct card_admin;

/*
 * Connect, open the admin queue, IDENTIFY. Errors: those of card_dial(), and of card_admin_call().
 */
int card_admin_open(struct speckv_ctx *ctx, const char *device_name, struct card_admin **out);
void card_admin_close(struct card_admin *admin);
/* 0, or -EOWNERDEAD in a forked child, text set. */
int card_admin_usable(struct card_admin *admin);
/*
 * Execute one command. Data goes through the arena: `in` before, `out` after; the entry's
 * data_address and data_bytes are filled in here. timeout_ns 0: CARD_PATIENCE_NS. Errors: the errno
 * of the completion's status, negative; -ETIMEDOUT and -ECONNRESET, after which every call on this
 * connection fails the same way: close it and open another.
 */
int card_admin_call(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result);
/* card_admin_call(), and the completion's status (0xffff: no completion). */
int card_admin_ask(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result, uint16_t *status);
/* IDENTIFY data from the time of the open; valid as long as `admin`. */
const struct speckv_identify *card_identity(const struct card_admin *admin);
int card_link(struct card_admin *admin, struct transport_link *out);
/* IDENTIFY again: memory and pools change. */
int card_identify(struct card_admin *admin, struct speckv_identify *out);
struct speckv_ctx *card_ctx(const struct card_admin *admin);
const char *card_name(const struct card_admin *admin);

/*
 * Called once per entry of a log, of header->entry_bytes. A non-zero result stops card_log(), which
 * returns it. May call the card.
 */
typedef int (*card_log_cb)(const struct speckv_log_header *header, const void *entry, void *arg);
/*
 * Read a log from behind a sequence number (logs without: a count of entries), up to the last entry
 * at the time of the first page.
 */
int card_log(struct card_admin *admin, unsigned int log, unsigned int pool, uint64_t after,
	card_log_cb cb, void *arg);

/* The public handle of <speckv/card.h>. */
struct speckv_admin {
	struct card_admin *card;
	struct speckv_ctx *ctx;
	int lock_fd; /* holds the firmware lock; -1: not held */
	struct fork_guard lock; /* of lock_fd */
};
/*
 * Copy a card's text (zero-padded, perhaps unterminated), with control characters replaced by '?'.
 */
void card_text(char *to, size_t room, const char *from, size_t bytes);
int card_digest(struct speckv_ctx *ctx, const void *data, uint64_t bytes, uint8_t digest[32]);

#endif
