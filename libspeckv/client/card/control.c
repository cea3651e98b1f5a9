// SPDX-License-Identifier: MIT
/*
 * <speckv/card.h>: names of cards; control of the process behind an emulated card, in lines over
 * its `control` socket.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <speckv/card.h>

#include "card.h"
#include "base/base.h"

#define PATIENCE_MS 5000
#define SOCKET "control"

/* Send one line, receive one line. */
static int exchange(int fd, const char *command, char *answer, size_t bytes)
{
	char line[256];
	size_t got = 0;
	int n = snprintf(line, sizeof(line), "%s\n", command);

	if (n < 0 || (size_t)n >= sizeof(line) || strchr(command, '\n'))
		return -EINVAL;
	if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return -ECONNRESET;
	memset(answer, 0, bytes);
	while (got + 1 < bytes) {
		struct pollfd poll_fd = { fd, POLLIN, 0 };
		ssize_t came;
		char *end;

		if (poll(&poll_fd, 1, PATIENCE_MS) <= 0)
			return -ETIMEDOUT;
		came = recv(fd, answer + got, bytes - got - 1, MSG_DONTWAIT);
		if (came <= 0)
			return -ECONNRESET;
		got += (size_t)came;
		end = strchr(answer, '\n');
		if (end) {
			*end = 0;
			return 0;
		}
	}
	return -ENOSPC;
}

int speckv_device_is_card(const char *device)
{
	return transport_scheme(device) != NULL;
}

int speckv_emu_control(struct speckv_ctx *ctx, const char *card, const char *command, char *answer,
	size_t bytes)
{
	int fd, error = 0, rc;
	char why[256] = "";

	if (!ctx || !command || !answer || !bytes)
		return -EINVAL;
	answer[0] = 0;
	fd = emulated_connect(ctx, card, SOCKET);
	if (fd < 0)
		return fd;
	rc = exchange(fd, command, answer, bytes);
	close(fd);
	if (rc)
		return emulated_unreachable(ctx, card, SOCKET, rc);
	if (sscanf(answer, "{\"error\": %d", &error) != 1)
		return emulated_unreachable(ctx, card, SOCKET, -EPROTO);
	if (!error)
		return 0;
	if (sscanf(answer, "{\"error\": %*d, \"message\": \"%255[^\"]\"", why) != 1)
		snprintf(why, sizeof(why), "%s", strerror(error));
	return fail(ctx, error > 0 && error < 4096 ? -error : -EIO, "%s: %s", card, why);
}
