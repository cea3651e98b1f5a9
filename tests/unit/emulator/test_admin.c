// SPDX-License-Identifier: MIT
/*
 * Administrators reach a card by its name, whatever the length of its path, and hear in one line
 * why they do not.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <speckv/speckv.h>

#include "client/card/card.h"
#include "harness.h"

#define EVENTS 300 /* more than a card keeps */

static struct speckv_ctx *ctx;
static char runtime_dir[128];

static void make_folders(void)
{
	char path[256];

	snprintf(runtime_dir, sizeof(runtime_dir), "/tmp/speckv-admin-XXXXXX");
	HOLDS(mkdtemp(runtime_dir));
	/* longer than the address of a socket */
	strcat(runtime_dir,
		"/a-runtime-folder-whose-path-is-longer-than-what-an-address-holds--------------");
	HOLDS(mkdir(runtime_dir, 0755) == 0);
	snprintf(path, sizeof(path), "%s/emu", runtime_dir);
	HOLDS(mkdir(path, 0755) == 0);
	HOLDS(setenv("SPECKV_RUNTIME_DIR", runtime_dir, 1) == 0);
	HOLDS(speckv_ctx_create(&ctx) == 0);
}

static void refused(const char *name, int error, const char *says)
{
	struct card_admin *admin;
	int rc = card_admin_open(ctx, name, &admin);

	if (rc != error || !strstr(speckv_strerror(ctx), says))
		fprintf(stderr, "%s: %d, '%s'\n", name, rc, speckv_strerror(ctx));
	HOLDS(rc == error && admin == NULL && strstr(speckv_strerror(ctx), says) &&
		!strchr(speckv_strerror(ctx), '\n'));
}

static int count_entries(const struct speckv_log_header *header, const void *entry, void *arg)
{
	uint64_t *seen = arg, sequence;

	(void)header;
	memcpy(&sequence, entry, sizeof(sequence));
	HOLDS(sequence > seen[1]);
	seen[0]++;
	seen[1] = sequence;
	return 0;
}

static int stop_at_once(const struct speckv_log_header *header, const void *entry, void *arg)
{
	(void)header;
	(void)entry;
	(void)arg;
	return 42;
}

static void logs(struct card_admin *admin)
{
	struct speckv_cmd_value reset = { .opcode = SPECKV_ADMIN_RESET,
		.value = SPECKV_RESET_ENGINE };
	uint64_t seen[2] = { 0, 0 }, last;

	HOLDS(card_log(admin, SPECKV_LOG_EVENTS, 0, 0, count_entries, seen) == 0);
	HOLDS(seen[0] == seen[1] && seen[0] > 0);
	for (int i = 0; i < EVENTS; i++)
		HOLDS(card_admin_call(admin, &reset, NULL, 0, NULL, 0, 0, NULL) == 0);
	last = seen[1];
	seen[0] = 0;
	HOLDS(card_log(admin, SPECKV_LOG_EVENTS, 0, last + 100, count_entries, seen) == 0);
	HOLDS(seen[0] == EVENTS - 100 && seen[1] == last + EVENTS);
	seen[0] = 0;
	HOLDS(card_log(admin, SPECKV_LOG_EVENTS, 0, seen[1], count_entries, seen) == 0 &&
		seen[0] == 0);
	HOLDS(card_log(admin, SPECKV_LOG_EVENTS, 0, 0, stop_at_once, NULL) == 42);
	HOLDS(card_log(admin, 77, 0, 0, count_entries, seen) == -EINVAL &&
		strstr(speckv_strerror(ctx), "no such log"));
}

static void *identify_often(void *arg)
{
	struct speckv_identify identity;

	for (int i = 0; i < 200; i++)
		HOLDS(card_identify(arg, &identity) == 0 &&
			identity.memory_bytes == card_identity(arg)->memory_bytes);
	return NULL;
}

/* Listens where a card would, and says something else, or nothing. */
static pid_t impostor(const char *folder, const char *answer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t pid;

	HOLDS(mkdir(folder, 0700) == 0 && chdir(folder) == 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "admin");
	HOLDS(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
		listen(fd, 4) == 0);
	pid = fork();
	HOLDS(pid >= 0);
	if (pid == 0)
		for (;;) {
			int peer = accept(fd, NULL, NULL);

			if (send(peer, answer, strlen(answer), MSG_NOSIGNAL) < 0)
				_exit(1);
			sleep(1);
			close(peer);
		}
	close(fd);
	return pid;
}

static void *kill_soon(void *arg)
{
	usleep(20000);
	kill(*(pid_t *)arg, SIGKILL);
	return NULL;
}

int main(int argc, char **argv)
{
	struct speckv_cmd_value odd = { .opcode = SPECKV_ADMIN_RESET, .value = 99 };
	struct card_process card = { "", 0 };
	struct card_admin *admin, *second;
	struct speckv_identify identity;
	pthread_t threads[3];
	char path[256];
	int status, rc;
	pid_t pid;

	HOLDS(argc == 2);
	make_folders();
	refused("emu:card0", -ENOENT, "speckvctl emu start card0");
	refused("emu:../x", -EINVAL, "after 'emu:'");
	refused("emu:", -EINVAL, "after 'emu:'");
	refused("host:DRAM", -EOPNOTSUPP, "emu:NAME");
	snprintf(card.folder, sizeof(card.folder), "%s/emu/card0", runtime_dir);
	HOLDS(mkdir(card.folder, 0700) == 0);
	refused("emu:card0", -ENXIO, "not running");

	card_start(&card, argv[1]);
	HOLDS(card_admin_open(ctx, "emu:card0", &admin) == 0);
	HOLDS(strcmp(card_identity(admin)->part, "LFE5U-85F-6BG381C") == 0);
	HOLDS(card_admin_call(admin, &odd, NULL, 0, NULL, 0, 0, NULL) == -EINVAL &&
		strstr(speckv_strerror(ctx), "emu:card0: invalid"));
	HOLDS(card_admin_open(ctx, "emu:card0", &second) == 0); /* two at once */
	HOLDS(card_identify(second, &identity) == 0 &&
		identity.function != card_identity(admin)->function);
	card_admin_close(second);
	logs(admin);
	for (int i = 0; i < 3; i++)
		HOLDS(pthread_create(&threads[i], NULL, identify_often, admin) == 0);
	for (int i = 0; i < 3; i++)
		HOLDS(pthread_join(threads[i], NULL) == 0);

	/* dies in the middle of it: an error, and the same from then on */
	HOLDS(pthread_create(&threads[0], NULL, kill_soon, &card.pid) == 0);
	do
		rc = card_identify(admin, &identity);
	while (!rc);
	HOLDS(rc == -ECONNRESET && strstr(speckv_strerror(ctx), "went away"));
	HOLDS(card_identify(admin, &identity) == -ECONNRESET);
	HOLDS(pthread_join(threads[0], NULL) == 0 && waitpid(card.pid, &status, 0) == card.pid);
	card_admin_close(admin);
	refused("emu:card0", -ENXIO, "not running"); /* the sockets are still there */

	snprintf(path, sizeof(path), "%s/emu/impostor", runtime_dir);
	pid = impostor(path, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
	refused("emu:impostor", -EOPNOTSUPP, "is not a card");
	HOLDS(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	strcat(path, "/admin");
	if (geteuid() != 0) {
		HOLDS(chmod(path, 0) == 0);
		refused("emu:impostor", -EACCES, "run as that user");
	}
	unlink(path);
	*strrchr(path, '/') = 0;
	HOLDS(rmdir(path) == 0);
	HOLDS(symlink("/nonexistent/folder", path) == 0);
	refused("emu:impostor", -ENOENT, "is gone");
	HOLDS(unlink(path) == 0);

	card_clean(&card);
	snprintf(path, sizeof(path), "%s/emu", runtime_dir);
	HOLDS(chdir("/") == 0 && rmdir(path) == 0 && rmdir(runtime_dir) == 0);
	*strrchr(runtime_dir, '/') = 0;
	HOLDS(rmdir(runtime_dir) == 0);
	speckv_ctx_destroy(ctx);
	printf("administrators: by name, one line for each refusal\n");
	return 0;
}
