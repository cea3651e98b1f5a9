// SPDX-License-Identifier: MIT
/*
 * test_backlog SPECKV-EMU SLOW-SOCKET: a peer asks for more than waits for it, and reads it all at
 * once later. Every request that the card has is answered, also where nothing comes after it that
 * would remind the card.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define REQUESTS 200
#define REPLY_BYTES (16u + 16 + 4096)
#define HANG_MS 4000 /* a peer that has something to read is not kept for longer */

static struct card_process card = { "", 0 };

int main(int argc, char **argv)
{
	struct {
		uint16_t id, command;
		uint32_t bytes, flags, error;
		uint16_t major, minor;
	} hello = { 1, 1, sizeof(hello), 0, 0, 0, 1 };
	struct {
		uint16_t id, command;
		uint32_t bytes, flags, error;
		uint64_t offset;
		uint32_t region, n;
	} read[REQUESTS];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static uint8_t replies[REQUESTS * REPLY_BYTES];
	size_t got = 0;

	HOLDS(argc == 3);
	HOLDS(setenv("LD_PRELOAD", argv[2], 1) == 0);
	card_start(&card, argv[1]);
	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/io", card.folder);
	HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	HOLDS(send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello) &&
		recv(fd, replies, sizeof(replies), 0) > 16);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		memset(&read[i], 0, sizeof(read[i]));
		read[i].id = (uint16_t)i;
		read[i].command = 9; /* REGION_READ, of BAR4 */
		read[i].bytes = sizeof(read[i]);
		read[i].region = 4;
		read[i].n = 4096;
	}
	HOLDS(send(fd, read, sizeof(read), MSG_NOSIGNAL) == sizeof(read));
	nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL);
	while (got < sizeof(replies)) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		ssize_t n;

		HOLDS(poll(&wait, 1, HANG_MS) == 1);
		n = recv(fd, replies + got, sizeof(replies) - got, 0);
		HOLDS(n > 0);
		got += (size_t)n;
	}
	for (unsigned int i = 0; i < REQUESTS; i++) {
		uint16_t id;

		memcpy(&id, replies + i * REPLY_BYTES, sizeof(id));
		HOLDS(id == i);
	}
	close(fd);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}
