/* SPDX-License-Identifier: MIT */
/*
 * Cards by device name: the scheme in front of it says how they are found and reached. A table of
 * operations each, in scheme.c. For client/card, client/backend and client/admin. Errors set the
 * text of the context. Threads: any.
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
	ADVISE_LOOK, /* a command that shows how the card does */
	ADVISE_RESTART, /* commands that start it again */
};
#define ADVICE_BYTES 256

struct transport_scheme {
	const char *prefix; /* of device names, with the colon */
	/*
	 * The folder of what such a card keeps: its uuid, the lock of its firmware. -EINVAL,
	 * -ENOENT: no such card; and those of folder_enter().
	 */
	int (*folder)(struct speckv_ctx *ctx, const char *device, char path[SPECKV_PATH_BYTES],
		struct folder *out);
	int (*open)(struct speckv_ctx *ctx, const char *device, enum transport_role role,
		size_t arena_bytes, struct transport **out);
	/*
	 * Why a call to it failed with this error, in words; returns the error that it stands for.
	 */
	int (*unreachable)(struct speckv_ctx *ctx, const char *device, enum transport_role role,
		int rc);
	/* The cards that are there, until the callback returns other than 0, which is returned. */
	int (*list)(struct speckv_ctx *ctx,
		int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg);
	/* What to type, quoted; false: there is no such command. */
	bool (*advise)(const char *device, enum transport_advice advice, char text[ADVICE_BYTES]);
};

/* NULL: the name of no card. */
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
/* The cards of every scheme. */
int transport_list(struct speckv_ctx *ctx,
	int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg);

/* ---- emulated.c ----------------------------------------------------------------------------- */

extern const struct transport_scheme transport_emulated;
/* Connect to a socket of the process behind an emulated card. Returns the descriptor. */
int emulated_connect(struct speckv_ctx *ctx, const char *device, const char *socket);
/*
 * The text for why that socket was not reached, or answers as no card does; returns the error that
 * it stands for.
 */
int emulated_unreachable(struct speckv_ctx *ctx, const char *device, const char *socket, int rc);

#endif
