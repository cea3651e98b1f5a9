/* SPDX-License-Identifier: MIT */
/*
 * What the client's tests share: checks that clean up, a private runtime folder that goes away, an
 * alarm against hangs, child processes, the three kinds of media, and blocks whose bytes follow from
 * their keys.
 */
#ifndef TEST_CLIENT_HARNESS_H
#define TEST_CLIENT_HARNESS_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <speckv/speckv.h>

/*
 * Report on the card, remove the private folder in the process that made it, and _exit(): atexit()
 * functions of a parent are not for its child, and a leak report would hide the message.
 */
__attribute__((noreturn)) void test_failed(void);
#define CHECK_FAILED() test_failed()
#include "../../check.h"

#define MIB (1ull << 20)

/* A call that must return exactly this; the library's text goes with a surprise. */
#define EXPECT(expected, call)                                                        \
	do {                                                                          \
		long long got_ = (call), want_ = (expected);                          \
		CHECK(got_ == want_, "%s is %lld, not %lld (%s)", #call, got_, want_, \
			speckv_strerror(test_ctx));                                   \
	} while (0)

/* A call that must fail so, with a text that says `part`. */
#define REFUSED(expected, part, call)                                             \
	do {                                                                      \
		EXPECT(expected, call);                                           \
		CHECK(strstr(speckv_strerror(test_ctx), part), "'%s' lacks '%s'", \
			speckv_strerror(test_ctx), part);                         \
	} while (0)

static inline bool sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#else
	return false;
#endif
}

extern struct speckv_ctx *test_ctx;
extern char test_dir[256];

/*
 * The device that a test runs on unless it is about one kind of medium: memory of this machine, or,
 * where SPECKV_TEST_EMULATOR names speckv-emu, an emulated card that was started for it.
 */
static inline bool test_on_card(void)
{
	return getenv("SPECKV_TEST_EMULATOR") != NULL;
}
#define MEMORY (test_on_card() ? "emu:card" : "host:DRAM")

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return at->level ? remove(path) : 0;
}

/* Everything below the private folder. */
static inline void empty_test_dir(void)
{
	if (nftw(test_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
		fprintf(stderr, "left behind: %s\n", test_dir);
}

/* A card of 512 MiB in the private folder; it keeps its state there when it is started again. */
void test_card_start(void);
void test_card_stop(int number);

/* Private runtime folder on memory, a context, and `seconds` to live, more under a sanitizer. */
void test_begin(unsigned int seconds);
void test_end(void);

/* ---- chance: seeded, so that a failure can be run again ------------------------------------- */

static inline uint64_t chance(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint64_t below(uint64_t *state, uint64_t limit)
{
	return chance(state) % limit;
}

static inline uint64_t now_nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void sleep_us(long us)
{
	nanosleep(&(struct timespec){ .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 },
		NULL);
}

/* ---- keys and the bytes that go with them --------------------------------------------------- */

static inline struct speckv_key key_of(uint64_t n)
{
	struct speckv_key key;
	uint64_t state = n * 0x2545f4914f6cdd1dull + 77;

	for (int i = 0; i < 4; i++) {
		uint64_t w = chance(&state);

		memcpy(key.bytes + 8 * i, &w, 8);
	}
	return key;
}

static inline void fill_block(const struct speckv_key *key, void *buffer, uint64_t bytes)
{
	uint64_t state, word;

	memcpy(&state, key->bytes, 8);
	for (uint64_t i = 0; i < bytes; i += 8) {
		word = chance(&state);
		memcpy((uint8_t *)buffer + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

/*
 * bf16 numbers, finite, that a delta codec packs more or less well: runs whose length follows from
 * the key.
 */
static inline void fill_numbers(const struct speckv_key *key, void *buffer, uint64_t bytes)
{
	uint64_t state, run = key->bytes[9] % 24;
	uint16_t value = 0x3f80;

	memcpy(&state, key->bytes, 8);
	for (uint64_t i = 0; i + 1 < bytes; i += 2) {
		if (below(&state, run + 1) == 0)
			value = (uint16_t)((chance(&state) & 0x8000) |
				(0x3f00 + (chance(&state) & 0xff)));
		memcpy((uint8_t *)buffer + i, &value, 2);
	}
}

static inline void *line_alloc(uint64_t bytes)
{
	void *at;

	CHECK(posix_memalign(&at, 64, bytes ? bytes : 1) == 0, "out of memory");
	return at;
}

static inline bool all_bytes(const void *buffer, uint64_t bytes, uint8_t value)
{
	const uint8_t *at = buffer;

	for (uint64_t i = 0; i < bytes; i++)
		if (at[i] != value)
			return false;
	return true;
}

/* ---- devices and pools ---------------------------------------------------------------------- */

/* 32 KiB of raw bf16. */
static const struct speckv_geometry small_shape = {
	.layers = 2, .kv_heads = 1, .head_dim = 64, .tokens = 64, .dtype = SPECKV_DTYPE_BF16
};
#define SMALL_BYTES (2ull * 2 * 64 * 64 * 2)

static inline struct speckv_pool_config small_pool(const char *name, uint64_t capacity)
{
	struct speckv_pool_config config = { .capacity_bytes = capacity,
		.geometry = small_shape,
		.uid = (uint32_t)-1,
		.gid = (uint32_t)-1 };

	snprintf(config.name, sizeof(config.name), "%s", name);
	return config;
}

static inline struct speckv_device *open_device(const char *name, unsigned int flags)
{
	struct speckv_device *dev = NULL;

	EXPECT(0, speckv_device_open(test_ctx, name, flags, &dev));
	return dev;
}

static inline struct speckv_pool *attach_pool(struct speckv_device *dev, const char *name,
	const char *tenant)
{
	struct speckv_attach attach = { .tenant = tenant };
	struct speckv_pool *pool = NULL;

	EXPECT(0, speckv_pool_open(dev, name, &attach, &pool));
	return pool;
}

enum media { MEDIUM_DRAM, MEDIUM_FILE, MEDIUM_FIXED, MEDIA };
/* How many kinds there are to try: a card is one. */
static inline int test_media(void)
{
	return test_on_card() ? 1 : MEDIA;
}

/* A device of each kind, made if need be; the fixed one has 96 MiB. */
static inline struct speckv_device *open_medium(enum media kind, char name[300])
{
	static const char *const leaf[] = { "", "new.kv", "fixed.kv" };
	struct stat st;

	if (kind == MEDIUM_DRAM)
		snprintf(name, 300, "%s", MEMORY);
	else
		snprintf(name, 300, "host:%s/%s", test_dir, leaf[kind]);
	if (kind == MEDIUM_FIXED && stat(name + 5, &st) != 0) {
		int fd = open(name + 5, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		CHECK(fd >= 0 && ftruncate(fd, 96 * MIB) == 0, "%s", name);
		close(fd);
		return open_device(name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	}
	return open_device(name, SPECKV_OPEN_CREATE);
}

static inline void remove_device(const char *name)
{
	EXPECT(0, speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS));
}

/* One block in, one block out; the status. */
static inline int put_block(struct speckv_pool *pool, const struct speckv_key *key, void *buffer,
	uint64_t bytes)
{
	struct speckv_request request = { .key = *key, .buffer = buffer, .buffer_bytes = bytes };
	int done = speckv_put(pool, &request, 1);

	CHECK(done < 0 || done == (request.status == 0), "%d, status %d", done, request.status);
	return done < 0 ? done : request.status;
}

static inline int get_block(struct speckv_pool *pool, const struct speckv_key *key, void *buffer,
	uint64_t bytes)
{
	struct speckv_request request = { .key = *key, .buffer = buffer, .buffer_bytes = bytes };
	int done = speckv_get(pool, &request, 1);

	CHECK(done < 0 || done == (request.status == 0), "%d, status %d", done, request.status);
	return done < 0 ? done : request.status;
}

/* Put block n, its bytes made from its key. */
static inline int put_number(struct speckv_pool *pool, uint64_t n, uint8_t *buffer)
{
	struct speckv_key key = key_of(n);
	uint64_t bytes = speckv_pool_block_bytes(pool);

	fill_block(&key, buffer, bytes);
	return put_block(pool, &key, buffer, bytes);
}

/* Get block n; a hit must hold its bytes. `buffer` has room for two blocks. */
static inline int get_number(struct speckv_pool *pool, uint64_t n, uint8_t *buffer)
{
	struct speckv_key key = key_of(n);
	uint64_t bytes = speckv_pool_block_bytes(pool);
	int rc = get_block(pool, &key, buffer, bytes);

	if (rc == 0) {
		fill_block(&key, buffer + bytes, bytes);
		CHECK(memcmp(buffer, buffer + bytes, bytes) == 0, "block %llu has wrong bytes",
			(unsigned long long)n);
	}
	return rc;
}

static inline int check_pool(struct speckv_device *dev, const char *name, unsigned int flags,
	struct speckv_check_report *report)
{
	return speckv_pool_check(dev, name, flags, NULL, NULL, report);
}

/*
 * The pool is sound, every page is accounted for, and it holds this many blocks (-1: any number).
 */
static inline void expect_sound(struct speckv_device *dev, const char *name, int64_t blocks)
{
	struct speckv_check_report r;
	struct speckv_pool_info info;

	EXPECT(0, check_pool(dev, name, SPECKV_CHECK_DEEP, &r));
	CHECK(!r.pages_leaked && !r.blocks_bad && !r.blocks_unindexed && !r.clients_dead,
		"leaked %llu bad %llu unindexed %llu dead %llu", (unsigned long long)r.pages_leaked,
		(unsigned long long)r.blocks_bad, (unsigned long long)r.blocks_unindexed,
		(unsigned long long)r.clients_dead);
	CHECK(r.pages == r.pages_free + r.pages_used + r.pages_allocated,
		"%llu pages, %llu free, %llu used, %llu allocated", (unsigned long long)r.pages,
		(unsigned long long)r.pages_free, (unsigned long long)r.pages_used,
		(unsigned long long)r.pages_allocated);
	CHECK(r.blocks == r.blocks_verified, "verified");
	CHECK(blocks < 0 || (uint64_t)blocks == r.blocks, "%lld blocks wanted, %llu there",
		(long long)blocks, (unsigned long long)r.blocks);
	EXPECT(0, speckv_pool_info(dev, name, &info));
	CHECK(info.used_bytes == (r.pages_used + r.pages_allocated) * info.config.page_bytes,
		"used");
}

/* ---- processes ------------------------------------------------------------------------------ */

/* A child that has no handle of its parent's; what it returns is its exit status. */
static inline pid_t spawn(int (*body)(void *arg), void *arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (pid == 0) {
		int status;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		test_ctx = NULL;
		EXPECT(0, speckv_ctx_create(&test_ctx));
		status = body(arg);
		fflush(NULL);
		_exit(status);
	}
	return pid;
}

static inline int wait_child(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void *shared_memory(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED, "mmap");
	return at;
}

#endif
