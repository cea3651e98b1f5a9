// SPDX-License-Identifier: MIT
/*
 * test_state SPECKV-EMU FAULTS: what a card makes in its folder is whole or not there, lies in that
 * folder and nowhere else, and a start that fails says why and leaves nothing. A card whose memory
 * goes away stops, and says why; one whose flash does goes on.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <speckv_regs.h>

#include "harness.h"

#define SECOND 1000000000ull
#define HANG_S 250
#define MIB (1ull << 20)
#define KEY "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"
#define FATAL_MEMORY 1
#define KILLS 60

static const char *program, *faults;

static void nap_us(long us)
{
	nanosleep(&(struct timespec){ .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 },
		NULL);
}

/* ---- starts that are not to succeed --------------------------------------------------------- */

static void new_folder(char *folder)
{
	strcpy(folder, "/tmp/speckv-state-test-XXXXXX");
	HOLDS(mkdtemp(folder));
}

static void empty(const char *folder)
{
	int at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *list;

	HOLDS(at >= 0);
	list = fdopendir(at);
	HOLDS(list);
	while ((entry = readdir(list)))
		if (entry->d_name[0] != '.')
			unlinkat(at, entry->d_name, 0);
	closedir(list);
}

/*
 * Names in the folder, but for the lock, which others may hold: left of a start that failed there
 * is none.
 */
static unsigned int names_in(const char *folder)
{
	DIR *list = opendir(folder);
	unsigned int count = 0;
	struct dirent *entry;

	HOLDS(list);
	while ((entry = readdir(list)))
		if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0)
			count++;
	closedir(list);
	return count;
}

static bool is_there(const char *folder, const char *name, struct stat *st)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, st) == 0;
}

/* Start it: its output is read from *output. */
static pid_t spawn(const char *folder, const char *memory, rlim_t largest_file,
	const char *variable, const char *value, int *output)
{
	int pipes[2];
	pid_t pid;

	HOLDS(pipe(pipes) == 0);
	pid = fork();
	HOLDS(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(pipes[1], STDOUT_FILENO);
		dup2(pipes[1], STDERR_FILENO);
		close(pipes[0]);
		close(pipes[1]);
		signal(SIGXFSZ, SIG_DFL);
		if (largest_file)
			setrlimit(RLIMIT_FSIZE, &(struct rlimit){ largest_file, largest_file });
		if (variable) {
			setenv("LD_PRELOAD", faults, 1);
			setenv(variable, value, 1);
		}
		execl(program, program, "--dir", folder, "--memory", memory, "--key", KEY,
			(char *)NULL);
		_exit(127);
	}
	close(pipes[1]);
	*output = pipes[0];
	return pid;
}

/* What it says until it is ready, or has ended: its status then, or -1. */
static int run(const char *folder, const char *memory, rlim_t largest_file, const char *variable,
	const char *value, char said[1024], pid_t *pid)
{
	int output, status;
	size_t have = 0;
	ssize_t n;

	*pid = spawn(folder, memory, largest_file, variable, value, &output);
	memset(said, 0, 1024);
	while (have < 1023 && !strstr(said, "ready\n") &&
		(n = read(output, said + have, 1023 - have)) > 0)
		have += (size_t)n;
	close(output);
	if (strstr(said, "ready\n"))
		return -1;
	HOLDS(waitpid(*pid, &status, 0) == *pid);
	if (!WIFEXITED(status))
		fprintf(stderr, "ended by signal %d: %s\n", WTERMSIG(status), said);
	HOLDS(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void finish(pid_t pid)
{
	int status;

	HOLDS(kill(pid, SIGTERM) == 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
		WEXITSTATUS(status) == 0);
}

/* ---- the flash that it is delivered with ---------------------------------------------------- */

static bool has_the_key(const char *folder)
{
	char path[256];
	uint8_t key[32];
	struct stat st;
	void *found;
	char *all;
	int fd;

	for (unsigned int i = 0; i < 32; i++) {
		unsigned int byte = 0;

		HOLDS(sscanf(KEY + i * 2, "%2x", &byte) == 1);
		key[i] = (uint8_t)byte;
	}
	snprintf(path, sizeof(path), "%s/flash", folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	HOLDS(fd >= 0 && fstat(fd, &st) == 0);
	all = malloc((size_t)st.st_size);
	HOLDS(all && read(fd, all, (size_t)st.st_size) == st.st_size);
	found = memmem(all, (size_t)st.st_size, key, sizeof(key));
	free(all);
	close(fd);
	return found;
}

/*
 * Whenever the first start is killed, there is no flash, or one with its keys; and the next start
 * makes what is missing.
 */
static void a_card_that_is_killed_while_it_is_made_has_its_keys(void)
{
	char folder[64], said[1024];
	unsigned int without = 0, with = 0;
	struct stat st;
	pid_t pid;

	new_folder(folder);
	for (int i = 0; i < KILLS || (!with && i < 100 * KILLS); i++) {
		int output, status;

		pid = spawn(folder, "16M", 0, NULL, NULL, &output);
		nap_us(i * 500);
		kill(pid, SIGKILL);
		HOLDS(waitpid(pid, &status, 0) == pid);
		close(output);
		if (is_there(folder, "flash", &st)) {
			HOLDS(has_the_key(folder));
			with++;
		} else {
			without++;
		}
		if (i % 4 != 3) /* else the next start finds what this one left */
			empty(folder);
	}
	HOLDS(without && with);
	HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == -1);
	finish(pid);
	HOLDS(has_the_key(folder) && !is_there(folder, "flash.new", &st) &&
		!is_there(folder, "uuid.new", &st));
	empty(folder);
	rmdir(folder);
}

/* ---- where it lies -------------------------------------------------------------------------- */

static void a_draft_that_is_a_link_leads_nowhere(void)
{
	static const char *const names[] = { "uuid.new", "flash.new" };
	char folder[64], said[1024], victim[80], path[256], text[8] = "";
	struct stat st;
	pid_t pid;
	int fd;

	new_folder(folder);
	snprintf(victim, sizeof(victim), "%s.victim", folder);
	fd = open(victim, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	HOLDS(fd >= 0 && write(fd, "thesis", 6) == 6);
	for (unsigned int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		HOLDS(symlink(victim, path) == 0);
	}
	HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == -1);
	finish(pid);
	HOLDS(pread(fd, text, sizeof(text), 0) == 6 && strcmp(text, "thesis") == 0 &&
		fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0600);
	HOLDS(!is_there(folder, "uuid.new", &st) && !is_there(folder, "flash.new", &st));
	for (unsigned int i = 0; i < 3; i++) { /* and its state is no link, not to what would do */
		static const char *const state[] = { "memory", "flash", "uuid" };
		static const char uuid[] = "00000000-0000-4000-8000-000000000000\n";

		HOLDS(ftruncate(fd, 0) == 0 &&
			(i < 2 || pwrite(fd, uuid, sizeof(uuid) - 1, 0) == sizeof(uuid) - 1));
		empty(folder);
		snprintf(path, sizeof(path), "%s/%s", folder, state[i]);
		HOLDS(symlink(victim, path) == 0);
		HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == 1 && strstr(said, folder));
		HOLDS(fstat(fd, &st) == 0 && st.st_size == (i < 2 ? 0 : (off_t)sizeof(uuid) - 1));
	}
	close(fd);
	unlink(victim);
	empty(folder);
	rmdir(folder);
}

/* Everything is made in the folder that was looked at, also when another has its path by then. */
static void a_folder_that_is_swapped_gets_nothing(void)
{
	static const char *const all[] = { "memory", "flash", "uuid", "admin", "io", "control" };
	char folder[64], said[1024], away[80], other[80];
	struct stat st;
	pid_t pid;

	new_folder(folder);
	snprintf(away, sizeof(away), "%s.away", folder);
	snprintf(other, sizeof(other), "%s.other", folder);
	HOLDS(mkdir(other, 0700) == 0);
	HOLDS(run(folder, "16M", 0, "SWAP_FOLDER", folder, said, &pid) == -1);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		HOLDS(is_there(away, all[i], &st));
	HOLDS(names_in(folder) == 0 && !is_there(folder, "lock", &st));
	finish(pid);
	empty(away);
	rmdir(away);
	rmdir(folder);
}

/* ---- what the machine does not give --------------------------------------------------------- */

static void a_limit_on_files_is_named_and_leaves_nothing(void)
{
	/* the last is enough for memory, and not for flash */
	static const rlim_t limits[] = { 4096, 8 * MIB, 16 * MIB + 4096 };
	char folder[64], said[1024];
	pid_t pid;

	new_folder(folder);
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		HOLDS(run(folder, "16M", limits[i], NULL, NULL, said, &pid) == 1);
		HOLDS(strstr(said, "ulimit -f") && strstr(said, folder));
		HOLDS(names_in(folder) == 0);
	}
	HOLDS(run(folder, "16M", 64 * MIB, NULL, NULL, said, &pid) == -1);
	finish(pid);
	empty(folder);
	rmdir(folder);
}

static void a_machine_without_asynchronous_io_is_told_what_to_raise(void)
{
	char folder[64], said[1024];
	pid_t pid;

	new_folder(folder);
	HOLDS(run(folder, "16M", 0, "NO_AIO", "1", said, &pid) == 1);
	HOLDS(strstr(said, "sysctl fs.aio-max-nr=") && strstr(said, folder) &&
		names_in(folder) == 0);
	empty(folder);
	rmdir(folder);
}

static void mounted(const char *folder, const char *options)
{
	umount2(folder, MNT_DETACH);
	HOLDS(mount("none", folder, "tmpfs", 0, options) == 0);
}

/* On a file system of its own; needs root. */
static void a_file_system_that_is_full_is_named_and_keeps_nothing(void)
{
	char folder[64], said[1024], options[64], path[256];
	bool started = false;
	struct stat st;
	pid_t pid;
	int fd;

	if (geteuid() != 0 || unshare(CLONE_NEWNS) != 0 ||
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
		printf("full file systems: not tried, that needs root\n");
		return;
	}
	new_folder(folder);
	for (unsigned int inodes = 2; !started; inodes++) { /* one is the root's, one the lock's */
		HOLDS(inodes < 16);
		snprintf(options, sizeof(options), "mode=700,size=200M,nr_inodes=%u", inodes);
		mounted(folder, options);
		started = run(folder, "16M", 0, NULL, NULL, said, &pid) == -1;
		if (!started)
			HOLDS(strstr(said, "no inode left") && strstr(said, folder) &&
				names_in(folder) == 0);
		else
			finish(pid);
	}
	mounted(folder, "mode=700,size=8M");
	HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == 1);
	HOLDS(strstr(said, "no room") && strstr(said, folder) && names_in(folder) == 0);
	/* a flash that is there, and whose space is not */
	mounted(folder, "mode=700,size=200M");
	HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == -1);
	finish(pid);
	snprintf(path, sizeof(path), "%s/flash", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	HOLDS(fd >= 0 && fstat(fd, &st) == 0);
	HOLDS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, st.st_size / 2,
		      st.st_size / 2) == 0);
	close(fd);
	snprintf(options, sizeof(options), "mode=700,size=%llum",
		(unsigned long long)(st.st_size / 2 / (off_t)MIB) + 4);
	HOLDS(mount("none", folder, "tmpfs", MS_REMOUNT, options) == 0);
	HOLDS(run(folder, "16M", 0, NULL, NULL, said, &pid) == 1 && strstr(said, "no room"));
	HOLDS(is_there(folder, "flash", &st) && is_there(folder, "memory", &st));
	umount2(folder, MNT_DETACH);
	rmdir(folder);
}

/* ---- memory and flash that go away ---------------------------------------------------------- */

static uint32_t read32(struct transport *t, uint32_t offset)
{
	uint32_t value = 0;

	HOLDS(t->ops->read32(t, offset, &value) == 0);
	return value;
}

static bool has_stopped(struct transport *t)
{
	return read32(t, offsetof(speckv_regs_t, STATUS)) & SPECKV_REGS__STATUS__FATAL_bm;
}

static void cut(const struct card_process *card, const char *name, off_t bytes)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", card->folder, name);
	HOLDS(truncate(path, bytes) == 0);
}

/*
 * Its memory is lost: clients hear nothing that would not be true, who administers it hears why,
 * and no reset hides that.
 */
static void a_card_that_lost_its_memory_says_so(void)
{
	struct speckv_cmd_value reset = { .opcode = SPECKV_ADMIN_RESET,
		.value = SPECKV_RESET_CARD };
	struct card_process card = { "", 0 };
	struct admin admin, late;
	uint16_t status = 0;
	unsigned int pool;
	uint8_t uuid[16];
	struct io io;

	card_start(&card, program);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&io, pool, 1, 0, 1) == SPECKV_STATUS_OK);
	cut(&card, "memory", 0);
	HOLDS(io_write(&io, pool, 2, 66 * 1024, 1) != SPECKV_STATUS_OK ||
		has_stopped(io.transport));
	while (!has_stopped(admin.transport)) /* alarm() ends it */
		nap_us(1000);
	for (int i = 0; i < 2; i++) {
		/* a log, which lies in that memory, and a reset, again and again */
		struct speckv_cmd_log log = { .opcode = SPECKV_ADMIN_GET_LOG,
			.data_bytes = 65536,
			.log = SPECKV_LOG_EVENTS };

		log.data_address = transport_address(admin.transport, admin.data);
		HOLDS(queue_call(&admin.queue, &log, 5 * SECOND, NULL, &status) == 0 &&
			status == SPECKV_STATUS_OK);
		HOLDS(read32(admin.transport, offsetof(speckv_regs_t, FATAL_CAUSE)) ==
			FATAL_MEMORY);
		queue_call(&admin.queue, &reset, 5 * SECOND, NULL, &status);
		HOLDS(status == SPECKV_STATUS_NOT_READY);
	}
	admin_open(&late, &card);
	HOLDS(read32(late.transport, offsetof(speckv_regs_t, FATAL_CAUSE)) == FATAL_MEMORY);
	admin_close(&late);
	io.transport->ops->close(io.transport);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
}

static void a_card_that_lost_its_flash_lives(void)
{
	struct speckv_cmd_value save = { .opcode = SPECKV_ADMIN_SET_FEATURE,
		.feature = SPECKV_FEATURE_POLL_MICROSECONDS,
		.value = 100 };
	struct card_process card = { "", 0 };
	struct admin admin;
	uint16_t status = 0;
	uint8_t uuid[16];

	card_start(&card, program);
	admin_open(&admin, &card);
	admin_create_pool(&admin, "chat", 8 << 20, uuid);
	cut(&card, "flash", 0);
	save.flags = SPECKV_FEATURE_SAVE;
	queue_call(&admin.queue, &save, 5 * SECOND, NULL, &status);
	HOLDS(status != SPECKV_STATUS_OK && status != 0);
	card_lives(&card);
	HOLDS(admin_find_pool(&admin, "chat"));
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
}

int main(int argc, char **argv)
{
	HOLDS(argc == 3);
	program = argv[1];
	faults = argv[2];
	alarm(HANG_S);
	a_card_that_lost_its_memory_says_so();
	a_card_that_lost_its_flash_lives();
	a_limit_on_files_is_named_and_leaves_nothing();
	a_machine_without_asynchronous_io_is_told_what_to_raise();
	a_card_that_is_killed_while_it_is_made_has_its_keys();
	a_draft_that_is_a_link_leads_nowhere();
	a_folder_that_is_swapped_gets_nothing();
	a_file_system_that_is_full_is_named_and_keeps_nothing();
	return 0;
}
