/* SPDX-License-Identifier: MIT */
/*
 * Cards by device name: its scheme selects a table of operations, in scheme.c. For client/card,
 * client/backend and client/admin. Errors set the text of the context. Threads: any.
 */
#ifndef SPECKV_TRANSPORT_SCHEME_H
#define SPECKV_TRANSPORT_SCHEME_H

#include "base/base.h"
#include "transport.h"

enum transport_role {
	TRANSPORT_IO, /* data of pools */
	TRANSPORT_ADMIN, /* the privileged queue pair */
};

enum transport_advice {
	ADVISE_LOOK, /* a command that shows the card's state */
	ADVISE_RESTART, /* commands that restart it */
};
#define ADVICE_BYTES 256

struct transport_scheme {
	const char *prefix; /* of device names, with the colon */
	/*
	 * Open the card's folder: its uuid and its firmware lock are there. -EINVAL, -ENOENT: no
	 * such card; and those of folder_enter().
	 */
	int (*folder)(struct speckv_ctx *ctx, const char *device, char path[SPECKV_PATH_BYTES],
		struct folder *out);
	int (*open)(struct speckv_ctx *ctx, const char *device, enum transport_role role,
		size_t arena_bytes, struct transport **out);
	/* Set the text for a failed call to the card; returns the error to report. */
	int (*unreachable)(struct speckv_ctx *ctx, const char *device, enum transport_role role,
		int rc);
	/* Call back for each card, until the callback returns non-zero, which is returned. */
	int (*list)(struct speckv_ctx *ctx,
		int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg);
	/* The command to type, quoted; false: none. */
	bool (*advise)(const char *device, enum transport_advice advice, char text[ADVICE_BYTES]);
};

/* NULL: not the name of a card. */
const struct transport_scheme *transport_scheme(const char *device);
/*
 * Connect. Errors: -ENOENT (no such card), -ENXIO (not running), -EACCES, -EOPNOTSUPP (not a card,
 * or not its name), -ETIMEDOUT, -ENOMEM.
 */
int transport_open(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	size_t arena_bytes, struct transport **out);
int transport_folder(struct speckv_ctx *ctx, const char *device, char path[SPECKV_PATH_BYTES],
	struct folder *out);
int transport_unreachable(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	int rc);
/* Call back for the cards of every scheme. */
int transport_list(struct speckv_ctx *ctx,
	int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg);

/* ---- emulated.c ----------------------------------------------------------------------------- */

extern const struct transport_scheme transport_emulated;
/* Connect to a socket of the process behind an emulated card. Returns the descriptor. */
int emulated_connect(struct speckv_ctx *ctx, const char *device, const char *socket);
/*
 * Set the text for why that socket could not be reached, or is not a card's; returns the error to
 * report.
 */
int emulated_unreachable(struct speckv_ctx *ctx, const char *device, const char *socket, int rc);

#endif
