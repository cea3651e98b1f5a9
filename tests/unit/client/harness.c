// SPDX-License-Identifier: MIT
/*
 * What a test of the client begins and ends with: the private folder, the context, the alarm, and
 * the card, in one copy for all sources of a program.
 */
#include "harness.h"

struct speckv_ctx *test_ctx;
char test_dir[256];
static pid_t test_main_pid, test_card_pid;

void test_card_start(void)
{
	char folder[300], line[16];
	int ready[2];

	snprintf(folder, sizeof(folder), "%s/emu", test_dir);
	CHECK(mkdir(folder, 0700) == 0 || errno == EEXIST, "mkdir");
	snprintf(folder, sizeof(folder), "%s/emu/card", test_dir);
	CHECK(pipe2(ready, O_CLOEXEC) == 0, "pipe");
	test_card_pid = fork();
	CHECK(test_card_pid >= 0, "fork");
	if (test_card_pid == 0) {
		const char *program = getenv("SPECKV_TEST_EMULATOR");

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ready[1], STDOUT_FILENO);
		execl(program, program, "--dir", folder, "--memory", "512M", (char *)NULL);
		_exit(127);
	}
	close(ready[1]);
	CHECK(read(ready[0], line, sizeof(line)) > 0 && strncmp(line, "ready", 5) == 0,
		"the emulator did not start");
	close(ready[0]);
}

void test_card_stop(int number)
{
	int status;

	if (test_card_pid > 0) {
		kill(test_card_pid, number);
		waitpid(test_card_pid, &status, 0);
	}
	test_card_pid = 0;
}

/* Print with a failure how the card's process ended, or what it is doing. */
static void test_card_report(void)
{
	static const char *const files[] = { "stat", "wchan" };
	char path[64], text[400];
	int status;

	if (test_card_pid <= 0)
		return;
	if (getpid() == test_main_pid &&
		waitpid(test_card_pid, &status, WNOHANG) == test_card_pid) {
		fprintf(stderr, "the card's process ended: %s %d\n",
			WIFSIGNALED(status) ? "signal" : "exit status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		test_card_pid = 0;
		return;
	}
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		FILE *file;
		size_t n = 0;

		snprintf(path, sizeof(path), "/proc/%d/%s", (int)test_card_pid, files[i]);
		file = fopen(path, "re");
		if (file) {
			n = fread(text, 1, sizeof(text) - 1, file);
			fclose(file);
		}
		text[n] = 0;
		fprintf(stderr, "the card's process, %s: %s\n", files[i], n ? text : "gone");
	}
}

static void test_clean(void)
{
	if (getpid() != test_main_pid || !*test_dir)
		return;
	test_card_stop(SIGKILL);
	empty_test_dir();
	rmdir(test_dir);
}

void test_failed(void)
{
	fflush(NULL);
	test_card_report();
	test_clean();
	_exit(1);
}

static void test_hung(int number)
{
	static const char text[] = "a call hung: the alarm went off\n";

	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(3);
	abort();
}

void test_begin(unsigned int seconds)
{
	const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";

	test_main_pid = getpid();
	snprintf(test_dir, sizeof(test_dir), "%s/speckv-client-XXXXXX", base);
	CHECK(mkdtemp(test_dir), "mkdtemp");
	CHECK(setenv("SPECKV_RUNTIME_DIR", test_dir, 1) == 0, "setenv");
	atexit(test_clean);
	signal(SIGALRM, test_hung);
	alarm(sanitized() ? 6 * seconds : seconds);
	if (test_on_card())
		test_card_start();
	EXPECT(0, speckv_ctx_create(&test_ctx));
}

void test_end(void)
{
	speckv_ctx_destroy(test_ctx);
	test_ctx = NULL;
	test_card_stop(SIGKILL);
}
