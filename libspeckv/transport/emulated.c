// SPDX-License-Identifier: MIT
/*
 * Emulated cards: each is a folder in the runtime folder, with the sockets admin, io and control of
 * its process.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scheme.h"

#define PREFIX "emu:"
#define FOLDER "emu" /* in the runtime folder */

static const char *name_of(const char *device)
{
	return device + sizeof(PREFIX) - 1;
}

static int emulated_folder(struct speckv_ctx *ctx, const char *device, char path[SPECKV_PATH_BYTES],
	struct folder *folder)
{
	const char *name = name_of(device);
	struct folder emulated;
	struct stat st;
	int bytes, rc;

	if (!name_ok(name))
		return fail(ctx, -EINVAL,
			"%.80s: after '" PREFIX
			"' comes a name of letters, digits, '.', '_' and '-'",
			device);
	bytes = snprintf(path, SPECKV_PATH_BYTES, "%s/" FOLDER "/%s", ctx->runtime_dir, name);
	if (bytes < 0 || bytes >= SPECKV_PATH_BYTES)
		return fail(ctx, -ENAMETOOLONG, "%s: the path of its folder is too long", device);
	rc = runtime_folder(ctx, FOLDER, 0, &emulated);
	if (!rc)
		rc = folder_enter(ctx, &emulated, path,
			FOLDER_LINK | (ctx->runtime_named ? FOLDER_GROUP : 0), folder);
	if (rc == -ENOENT && emulated.fd >= 0 &&
		fstatat(emulated.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		rc = fail(ctx, -ENOENT,
			"%s: the folder that %s points to is gone; 'speckvctl emu stop %s --remove' removes the card",
			device, path, name);
	else if (rc == -ENOENT)
		rc = fail(ctx, -ENOENT, "no emulated card %s: 'speckvctl emu start %s' creates one",
			name, name);
	folder_close(&emulated);
	return rc;
}

static int why_unreachable(struct speckv_ctx *ctx, const char *device, const char *path, int rc)
{
	const char *name = name_of(device);

	switch (rc) {
	case -ENOENT:
	case -ECONNREFUSED:
		return fail(ctx, -ENXIO, "%s is not running: 'speckvctl emu start %s'", device,
			name);
	case -EACCES:
	case -EPERM: {
		struct stat st;

		if (stat(path, &st) != 0)
			return fail(ctx, -EACCES, "%s: no permission to reach %s; run as its owner",
				device, path);
		return fail(ctx, -EACCES,
			"%s: no permission on %s, which belongs to uid %u; run as that user",
			device, path, st.st_uid);
	}
	case -EKEYREJECTED:
		return fail(ctx, -EACCES,
			"%s: the listener at %s is another user's process: 'speckvctl emu stop %s' and start it again",
			device, path, name);
	case -ETIMEDOUT:
		return fail(ctx, rc,
			"%s does not answer; 'speckvctl emu stop %s' and start it again", device,
			name);
	case -EPROTO:
	case -EPROTOTYPE:
	case -ENOTSOCK:
		return fail(ctx, -EOPNOTSUPP, "%s: the listener at %s is not a card", device, path);
	case -EUSERS:
		return fail(ctx, rc,
			"%s: this user's connection limit is reached: 'speckvctl emu status %s' lists them",
			device, name);
	case -ECONNRESET:
		return fail(ctx, rc,
			"%s closed the connection: its connection limit is reached, or it stopped: 'speckvctl emu status %s'",
			device, name);
	default:
		return fail(ctx, rc, "%s: cannot connect to %s: %s", device, path, strerror(-rc));
	}
}

/* Open the folder of a card, and build the path of a socket in it. */
static int find_socket(struct speckv_ctx *ctx, const char *device, const char *socket,
	char path[SPECKV_PATH_BYTES], struct folder *folder)
{
	int rc = emulated_folder(ctx, device, path, folder);

	if (!rc)
		snprintf(path + strlen(path), SPECKV_PATH_BYTES - strlen(path), "/%s", socket);
	return rc;
}

static const char *socket_of(enum transport_role role)
{
	return role == TRANSPORT_ADMIN ? "admin" : "io";
}

static int emulated_open(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	size_t arena_bytes, struct transport **out)
{
	struct folder folder = { .fd = -1 };
	char path[SPECKV_PATH_BYTES];
	int rc = find_socket(ctx, device, socket_of(role), path, &folder);

	if (rc)
		return rc;
	rc = transport_open_vfio_user((struct transport_place){ folder.fd, path, folder.owner },
		arena_bytes, out);
	folder_close(&folder);
	return rc ? why_unreachable(ctx, device, path, rc) : 0;
}

int emulated_connect(struct speckv_ctx *ctx, const char *device, const char *socket_name)
{
	struct folder folder = { .fd = -1 };
	char path[SPECKV_PATH_BYTES];
	int fd, rc;

	if (!device || strncmp(device, PREFIX, sizeof(PREFIX) - 1) != 0)
		return fail(ctx, -EOPNOTSUPP,
			"%s is not an emulated card; those are named " PREFIX "NAME",
			device ? device : "(null)");
	rc = find_socket(ctx, device, socket_name, path, &folder);
	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = fd < 0 ? -errno
		    : transport_dial(fd, (struct transport_place){ folder.fd, path, folder.owner });
	folder_close(&folder);
	if (!rc)
		return fd;
	if (fd >= 0)
		close(fd);
	return why_unreachable(ctx, device, path, rc);
}

int emulated_unreachable(struct speckv_ctx *ctx, const char *device, const char *socket_name,
	int rc)
{
	char path[SPECKV_PATH_BYTES];

	/* for the text only: a folder that has gone since is not the reason */
	snprintf(path, sizeof(path), "%.*s/" FOLDER "/%.200s/%s", SPECKV_PATH_BYTES - 256,
		ctx->runtime_dir, name_of(device), socket_name);
	return why_unreachable(ctx, device, path, rc);
}

static int role_unreachable(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	int rc)
{
	return emulated_unreachable(ctx, device, socket_of(role), rc);
}

static int emulated_list(struct speckv_ctx *ctx,
	int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg)
{
	char device[sizeof(PREFIX) + 256];
	struct dirent **list = NULL;
	struct folder in;
	int n, rc = 0;

	if (runtime_folder(ctx, FOLDER, 0, &in) != 0) /* an untrusted folder has none */
		return 0;
	n = scandirat(in.fd, ".", &list, NULL, versionsort);
	for (int i = 0; i < n; i++) {
		snprintf(device, sizeof(device), PREFIX "%s", list[i]->d_name);
		if (!rc && name_ok(list[i]->d_name))
			rc = cb(ctx, device, arg);
		free(list[i]);
	}
	free(list);
	folder_close(&in);
	return rc;
}

static bool emulated_advise(const char *device, enum transport_advice advice,
	char text[ADVICE_BYTES])
{
	const char *name = name_of(device);

	if (advice == ADVISE_LOOK)
		snprintf(text, ADVICE_BYTES, "'speckvctl emu status %s'", name);
	else
		snprintf(text, ADVICE_BYTES, "'speckvctl emu stop %s' and 'speckvctl emu start %s'",
			name, name);
	return true;
}

const struct transport_scheme transport_emulated = {
	.prefix = PREFIX,
	.folder = emulated_folder,
	.open = emulated_open,
	.unreachable = role_unreachable,
	.list = emulated_list,
	.advise = emulated_advise,
};
