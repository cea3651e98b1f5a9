// SPDX-License-Identifier: MIT
/*
 * test_unclosed SPECKV-EMU: a user sends the card files of a file system in user space, which never
 * answers when they are closed. Others are served, their connections are closed as ever, and that
 * user's are ended. Needs root, to mount; exits with 77 where that cannot be done.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
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
#define SENT 253 /* descriptors of one message */
#define MANY 600 /* connections that come and go */
#define CANNOT 77

static struct card_process card = { "", 0 };

/* ---- a file system with one file, whose FLUSH is never answered ----------------------------- */

static void answer(int fuse, uint64_t unique, int error, const void *body, size_t bytes)
{
	uint8_t out[512];
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + bytes), .error = -error, .unique = unique
	};

	memcpy(out, &header, sizeof(header));
	if (bytes)
		memcpy(out + sizeof(header), body, bytes);
	if (write(fuse, out, header.len) < 0 && errno != ENOENT) /* ENOENT: who asked is gone */
		_exit(1);
}

static void serve(int fuse)
{
	static uint8_t request[1 << 20];
	struct fuse_attr_out attributes = {
		.attr = { .ino = 1, .mode = S_IFDIR | 0755, .nlink = 2 }
	};
	struct fuse_entry_out entry = { .nodeid = 2,
		.attr = { .ino = 2, .mode = S_IFREG | 0666, .nlink = 1 } };
	struct fuse_open_out opened = { .fh = 1 };
	struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096, .max_background = 16
	};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		struct fuse_in_header in;
		ssize_t n = read(fuse, request, sizeof(request));

		if (n < (ssize_t)sizeof(in)) {
			if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
				continue;
			_exit(1);
		}
		memcpy(&in, request, sizeof(in));
		switch (in.opcode) {
		case FUSE_INIT:
			answer(fuse, in.unique, 0, &init, sizeof(init));
			break;
		case FUSE_GETATTR:
			attributes.attr.ino = in.nodeid;
			attributes.attr.mode = in.nodeid == 1 ? S_IFDIR | 0755 : S_IFREG | 0666;
			answer(fuse, in.unique, 0, &attributes, sizeof(attributes));
			break;
		case FUSE_LOOKUP:
			answer(fuse, in.unique, 0, &entry, sizeof(entry));
			break;
		case FUSE_OPEN:
			answer(fuse, in.unique, 0, &opened, sizeof(opened));
			break;
		case FUSE_FLUSH:
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(fuse, in.unique, ENOSYS, NULL, 0);
		}
	}
}

/* ---- its user ------------------------------------------------------------------------------- */

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/io", card.folder);
	HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static bool send_many(int to, int fd, uint16_t command)
{
	struct {
		uint16_t id, command;
		uint32_t bytes, flags, error;
		uint16_t major, minor;
	} message = { 1, command, sizeof(message), 0, 0, 0, 1 };
	static char control[CMSG_SPACE(SENT * sizeof(int))];
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr out = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&out);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(SENT * sizeof(int));
	for (size_t i = 0; i < SENT; i++)
		memcpy(CMSG_DATA(rights) + i * sizeof(int), &fd, sizeof(fd));
	return sendmsg(to, &out, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(message);
}

/*
 * Half of the connections greet; each sends as many as it may. Ends when the card has ended them
 * all.
 */
static void hostile(int file)
{
	int fds[8];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	HOLDS(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 8; i++) {
		fds[i] = dial();
		for (int n = 0; n < 4 && send_many(fds[i], file, i & 1 && !n ? 1 : 4); n++)
			;
	}
	for (int i = 0; i < 8; i++) {
		struct pollfd wait = { .fd = fds[i], .events = POLLRDHUP };

		if (poll(&wait, 1, HANG_MS) != 1) {
			fprintf(stderr, "a peer whose files do not close is kept\n");
			_exit(1);
		}
	}
	_exit(0); /* waits until its own file is closed */
}

int main(int argc, char **argv)
{
	char place[] = "/tmp/speckv-unclosed-XXXXXX", path[256];
	unsigned int pool, before, after = 0;
	struct admin admin;
	uint8_t uuid[16];
	struct io io;
	int fuse, file, status;
	pid_t server, peer;

	HOLDS(argc == 2);
	signal(SIGPIPE, SIG_IGN);
	if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		return CANNOT;
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	HOLDS(mkdtemp(place));
	snprintf(path, sizeof(path), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	if (fuse < 0 || mount("unclosed", place, "fuse", MS_NOSUID | MS_NODEV, path) != 0) {
		rmdir(place);
		return CANNOT;
	}
	card_start(&card, argv[1]); /* before: it inherits none of it */
	HOLDS(chmod(card.folder, 0755) == 0);
	snprintf(path, sizeof(path), "%s/io", card.folder);
	HOLDS(chmod(path, 0666) == 0);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
	before = card_descriptors(&card);

	server = fork();
	HOLDS(server >= 0);
	if (!server)
		serve(fuse);
	close(fuse); /* the file system ends with its server */
	snprintf(path, sizeof(path), "%s/file", place);
	peer = fork(); /* the only one that has the file: a process that closes it waits */
	HOLDS(peer >= 0);
	if (!peer) {
		file = open(path, O_RDWR | O_CLOEXEC);
		HOLDS(file >= 0);
		hostile(file);
	}
	for (int i = 0; i < MANY; i++) {
		HOLDS(io_read(&io, pool, 7, 0, 1) == SPECKV_STATUS_OK);
		close(dial());
	}
	HOLDS(admin_find_pool(&admin, "chat") == pool);
	for (int waited = 0; waited < HANG_MS / 20; waited++) { /* what came and went was closed */
		after = card_descriptors(&card);
		if (after < before + 2 * SENT && waited > 50)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	printf("descriptors of the card: %u before, %u beside files that do not close\n", before,
		after);
	HOLDS(waitpid(peer, &status, WNOHANG) == 0 ||
		(WIFEXITED(status) && WEXITSTATUS(status) == 0));
	io_close(&io);
	io_open(&io, &card);
	io_close(&io);
	card_lives(&card);
	HOLDS(after < before + 2 * SENT);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	HOLDS(waitpid(peer, &status, 0) == peer && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	for (int waited = 0; waited < HANG_MS / 20 && card_descriptors(&card) > before; waited++)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	HOLDS(card_descriptors(&card) <= before);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	umount2(place, MNT_DETACH);
	rmdir(place);
	return 0;
}
