// SPDX-License-Identifier: MIT
/* Peers that send nonsense, nothing, or too much neither stop nor stall a card that others use. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"

static int dial(const struct card_process *card, const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%.20s", card->folder, name);
	HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static uint64_t state = 88172645463325252ull;
static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

/*
 * A greeting, then messages of every command with random bodies; what the card answers is not read.
 */
static void nonsense(const struct card_process *card, const char *name, unsigned int messages,
	bool greet)
{
	int fd = dial(card, name);
	struct header hello = { 1, 1, sizeof(hello) + 4, 0, 0 };
	uint8_t message[256];

	memset(message, 0, sizeof(message));
	memcpy(message, &hello, sizeof(hello));
	if (greet)
		HOLDS(send(fd, message, sizeof(hello) + 4, MSG_NOSIGNAL) > 0);
	for (unsigned int i = 0; i < messages; i++) {
		struct header h = { (uint16_t)i, (uint16_t)(next_random() % 17),
			(uint32_t)(sizeof(h) + next_random() % 200), (uint32_t)(next_random() % 3),
			0 };

		for (size_t b = 0; b < sizeof(message); b += 8) {
			uint64_t r = next_random();

			if (next_random() % 3 == 0)
				r %= 64; /* small numbers reach further */
			memcpy(message + b, &r, 8);
		}
		if (next_random() % 50 == 0)
			h.bytes = (uint32_t)next_random();
		memcpy(message, &h, sizeof(h));
		if (send(fd, message, h.bytes < sizeof(message) ? h.bytes : sizeof(message),
			    MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	}
	close(fd);
}

/* The emulator's own commands, whatever else is connected there. */
static void control_answers(const struct card_process *card)
{
	char answer[8192] = "";
	int fd = dial(card, "control");

	HOLDS(send(fd, "status\n", 7, MSG_NOSIGNAL) == 7 &&
		recv(fd, answer, sizeof(answer) - 1, 0) > 0 && strstr(answer, "\"error\": 0"));
	close(fd);
}

/*
 * Every function that the I/O socket has to give is taken, and in use: who administers the card
 * gets in all the same.
 */
static void all_taken(const struct card_process *card)
{
	struct transport *taken[80];
	struct queue queues[80];
	unsigned int count = 0;
	struct admin admin[4];
	char path[256];
	int rc = 0;

	snprintf(path, sizeof(path), "%s/io", card->folder);
	for (; count < 80; count++) {
		rc = transport_open_vfio_user((struct transport_place){ -1, path, (uid_t)-1 },
			1 << 20, &taken[count]);
		if (rc)
			break;
		HOLDS(queue_open_io(&queues[count], taken[count], 0, 4, 1) == 0);
	}
	HOLDS(rc == -EUSERS && count >= 32 && count < 64);
	for (unsigned int i = 0; i < 4; i++) {
		admin_open(&admin[i], card);
		HOLDS(admin_find_pool(&admin[i], "chat"));
	}
	control_answers(card);
	for (unsigned int i = 0; i < 4; i++)
		admin_close(&admin[i]);
	while (count--)
		taken[count]->ops->close(taken[count]);
}

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	struct admin admin;
	uint8_t uuid[16];
	unsigned int pool;
	struct io io;
	int silent[200], lines[40];

	HOLDS(argc == 2);
	card_start(&card, argv[1]);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
	for (unsigned int i = 0; i < 200; i++) /* connected, and silent */
		silent[i] = dial(&card, i & 1 ? "io" : "admin");
	for (unsigned int i = 0; i < 40; i++)
		lines[i] = dial(&card, "control");
	control_answers(&card);
	for (unsigned int round = 0; round < 60; round++) {
		nonsense(&card, round & 1 ? "io" : "admin", 200, round % 3 != 0);
		HOLDS(io_read(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
	}
	nonsense(&card, "control", 20, false);
	for (unsigned int i = 0; i < 200; i++)
		close(silent[i]);
	for (unsigned int i = 0; i < 40; i++)
		close(lines[i]);
	HOLDS(admin_find_pool(&admin, "chat") == pool);
	card_lives(&card);
	io_close(&io);
	all_taken(&card);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	printf("hostile peers: others were served\n");
	return 0;
}
