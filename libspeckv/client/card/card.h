/* SPDX-License-Identifier: MIT */
/*
 * A card as its administrator reaches it: found by its device name, and commanded over the
 * privileged queue pair. Nothing here is seen outside libspeckv; <speckv/card.h> is what others
 * see.
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
 * transport_open(), held against the register map. Errors: those, and -EPROTONOSUPPORT (register
 * map of another major version), -ETIMEDOUT.
 */
int card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out);

/* Has the card stopped on a fatal error? -EIO, with why and what helps; 0: it has not. */
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
 * One command. Data goes through the arena: `in` before, `out` after; the entry's data_address and
 * data_bytes are filled in here. timeout_ns 0: CARD_PATIENCE_NS. Errors: the errno of the
 * completion's status, negative; -ETIMEDOUT and -ECONNRESET, after which the connection answers
 * every call so: close it and open another.
 */
int card_admin_call(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result);
/* The same, and the completion's status beside it (0xffff: the card did not answer). */
int card_admin_ask(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result, uint16_t *status);
/* What the card said when it was opened; valid as long as `admin`. */
const struct speckv_identify *card_identity(const struct card_admin *admin);
int card_link(struct card_admin *admin, struct transport_link *out);
/* What it says now: memory and pools change. */
int card_identify(struct card_admin *admin, struct speckv_identify *out);
struct speckv_ctx *card_ctx(const struct card_admin *admin);
const char *card_name(const struct card_admin *admin);

/*
 * Called once per entry of a log, of header->entry_bytes; return non-zero to stop, which card_log()
 * returns. May call the card.
 */
typedef int (*card_log_cb)(const struct speckv_log_header *header, const void *entry, void *arg);
/*
 * Entries of a log after a sequence number (logs without: after so many), up to those that are
 * there now.
 */
int card_log(struct card_admin *admin, unsigned int log, unsigned int pool, uint64_t after,
	card_log_cb cb, void *arg);

/* An administrator, as <speckv/card.h> hands him out. */
struct speckv_admin {
	struct card_admin *card;
	struct speckv_ctx *ctx;
	int lock_fd; /* holds the firmware lock; -1: does not */
	struct fork_guard lock; /* of lock_fd */
};
int card_digest(struct speckv_ctx *ctx, const void *data, uint64_t bytes, uint8_t digest[32]);

#endif
