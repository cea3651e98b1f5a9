// SPDX-License-Identifier: MIT
/*
 * test_lingering SPECKV-EMU: a user sends the card sockets that linger when they are closed, so
 * that closing a connection that has them waits, and comes and goes. What it leaves behind is
 * bounded, and others are served. Needs root, to be another user: 77.
 */
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define HANG_MS 60000 /* what takes longer than this never ends */
#define STRANGER 65534
/* connections that do not close: more than there are threads for them, and than may wait besides */
#define LINGERING 200
#define MANY 1500 /* that come and go then */
#define CANNOT 77

static struct card_process card = { "", 0 };

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/io", card.folder);
	HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

/* Of another version: the card ends the connection. */
struct greeting {
	uint16_t id, command;
	uint32_t bytes, flags, error;
	uint16_t major, minor;
};
static const struct greeting greeting = { 1, 1, sizeof(greeting), 0, 0, 9, 0 };

static bool send_with(int to, int fd)
{
	struct greeting message = greeting;
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr out = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&out);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
	return sendmsg(to, &out, MSG_NOSIGNAL) > 0; /* or the card has ended it already */
}

/* Its close() blocks until what it has sent is read. */
static int lingering(int listener, int *other)
{
	static const char data[65536];
	struct sockaddr_in address;
	socklen_t bytes = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	HOLDS(fd >= 0 && getsockname(listener, (struct sockaddr *)&address, &bytes) == 0);
	HOLDS(connect(fd, (struct sockaddr *)&address, bytes) == 0);
	*other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	HOLDS(*other >= 0);
	while (send(fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
	HOLDS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 1000 },
		      sizeof(struct linger)) == 0);
	return fd;
}

/*
 * Writes to `ready` when all of its connections linger, then connects and disconnects until it is
 * killed.
 */
static void hostile(int ready)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), other, fd;
	static uint8_t much[100000]; /* more than the card reads before it ends the connection */

	memcpy(much, &greeting, sizeof(greeting));
	HOLDS(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	HOLDS(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
		listen(listener, 1) == 0);
	for (int sent = 0; sent < LINGERING;) {
		int to = dial();

		fd = lingering(listener, &other);
		/* the card reads up to the first descriptors, and ends it */
		send_with(to, STDERR_FILENO);
		if (send_with(to, fd)) {
			sent++;
		} else {
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 0, 0 },
				sizeof(struct linger));
			close(other);
		}
		close(fd); /* the card has the last one */
		close(to);
	}
	for (int i = 0; i < MANY; i++) {
		int to = dial();

		send(to, much, sizeof(much), MSG_NOSIGNAL | MSG_DONTWAIT);
		close(to);
	}
	HOLDS(write(ready, "x", 1) == 1);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	unsigned int pool, before, after = 0;
	struct admin admin;
	uint8_t uuid[16];
	char path[256];
	struct io io;
	int ready[2];
	pid_t peer;

	HOLDS(argc == 2);
	signal(SIGPIPE, SIG_IGN);
	if (geteuid() != 0)
		return CANNOT;
	card_start(&card, argv[1]);
	HOLDS(chmod(card.folder, 0755) == 0);
	snprintf(path, sizeof(path), "%s/io", card.folder);
	HOLDS(chmod(path, 0666) == 0);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
	before = card_descriptors(&card);

	HOLDS(pipe(ready) == 0);
	peer = fork();
	HOLDS(peer >= 0);
	if (!peer)
		hostile(ready[1]);
	close(ready[1]);
	HOLDS(read(ready[0], path, 1) == 1);
	for (int waited = 0; waited < 100; waited++) {
		HOLDS(io_read(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	after = card_descriptors(&card);
	printf("descriptors of the card: %u before, %u beside connections that do not close\n",
		before, after);
	io_close(&io);
	io_open(&io, &card);
	io_close(&io);
	card_lives(&card);
	HOLDS(after > before + LINGERING / 2); /* beside the 64 that are being closed */
	HOLDS(after < before + 2 * LINGERING);
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	for (int waited = 0; waited < HANG_MS / 20 && card_descriptors(&card) > before; waited++)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	HOLDS(card_descriptors(&card) <= before);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}
