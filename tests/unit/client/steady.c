// SPDX-License-Identifier: MIT
/*
 * In steady state a put, get, look-up or touch makes no system call and no heap allocation.
 * Allocations are counted by standing in front of malloc, system calls by a seccomp filter that
 * traps every one.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "../../vectors/calibration.h"
#include "harness.h"

#define OPERATIONS 10000
#define SKIP 77

static volatile sig_atomic_t system_calls, last_call;
static _Atomic uint64_t allocations;

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

void *malloc(size_t n)
{
	allocations++;
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t m)
{
	allocations++;
	return __libc_calloc(n, m);
}

void *realloc(void *p, size_t n)
{
	allocations++;
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t a, size_t n)
{
	allocations++;
	return __libc_memalign(a, n);
}

int posix_memalign(void **p, size_t a, size_t n)
{
	allocations++;
	*p = __libc_memalign(a, n);
	return *p ? 0 : ENOMEM;
}

void free(void *p)
{
	allocations += p != NULL;
	__libc_free(p);
}
#else
#define COUNTED 0
#endif

static void trapped(int number, siginfo_t *info, void *context)
{
	system_calls++;
	last_call = info->si_syscall;
}

/*
 * From here on every system call but the ones a signal's return and the end of the process need is
 * trapped, and fails.
 */
static bool trap_system_calls(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 4, 0),
		/* the look, once a second, whether the pool's file is still there */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fstat, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_newfstatat, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };
	struct sigaction action = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO };

	return sigaction(SIGSYS, &action, NULL) == 0 &&
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void say(const char *text)
{
	if (write(2, text, strlen(text)) < 0)
		_exit(1);
}

struct material {
	struct speckv_pool *pool;
	struct speckv_request *puts;
	struct speckv_key *keys;
	uint8_t *block, *out, *present;
};

/* A pool and what is asked of it, once through everything. */
static void prepare(struct material *m, const struct calibration_file *file)
{
	bool calibrated = file != NULL;
	const char *name = calibrated ? "calibrated" : "steady";
	struct speckv_pool_config config = small_pool(name, calibrated ? 4 * MIB : 16 * MIB);
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	struct speckv_request *puts = calloc(OPERATIONS, sizeof(*puts));
	struct speckv_key *keys = calloc(OPERATIONS, sizeof(*keys));
	uint8_t *block = line_alloc(SMALL_BYTES), *out = line_alloc(SMALL_BYTES),
		*present = calloc(OPERATIONS, 1);
	struct speckv_pool *pool;
	struct timespec t;

	if (calibrated) {
		config.codec = SPECKV_CODEC_Q5C;
		config.calibration = file->bytes;
		config.calibration_bytes = file->length;
	}
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, name, "a");
	memset(block, 5, SMALL_BYTES);
	for (unsigned int i = 0; i < OPERATIONS; i++) {
		keys[i] = key_of(i);
		puts[i] = (struct speckv_request){
			.key = keys[i], .buffer = block, .buffer_bytes = SMALL_BYTES
		};
		if (i) {
			puts[i].parent = keys[i - 1];
			puts[i].flags = SPECKV_REQUEST_HAS_PARENT;
		}
	}
	/*
	 * once through everything: kernels are picked, pages are touched, and the pool is full, so
	 * that the puts that count evict
	 */
	EXPECT(1000, speckv_put(pool, puts, 1000));
	EXPECT(0, get_block(pool, &keys[999], out, SMALL_BYTES));
	EXPECT(1, speckv_lookup(pool, &keys[999], 1, present));
	EXPECT(1, speckv_lookup_prefix(pool, &keys[999], 1));
	EXPECT(1, speckv_touch(pool, &keys[999], 1));
	EXPECT(1, speckv_drop(pool, &keys[999], 1));
	clock_gettime(CLOCK_MONOTONIC, &t);
	clock_gettime(CLOCK_REALTIME, &t);
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	*m = (struct material){ pool, puts, keys, block, out, present };
}

/* From here on both are counted: 0, SKIP where this machine cannot, 1 where they are not. */
static int begin_counting(void)
{
	struct timespec t;
	uint64_t before;

	if (!trap_system_calls())
		return SKIP;
	clock_gettime(CLOCK_MONOTONIC, &t);
	if (system_calls)
		return SKIP; /* a machine whose clocks are system calls */
	syscall(SYS_getppid);
	before = atomic_load(&allocations);
	free(aligned_alloc(64, 64));
	if (system_calls != 1 || last_call != SYS_getppid ||
		atomic_load(&allocations) != before + 2)
		return 1; /* the counters count */
	system_calls = 0;
	return 0;
}

/* In a child of its own: the filter cannot be taken off. */
static int measure(void *arg)
{
	struct material m;
	uint64_t before, hits = 0;
	char text[200];
	int rc;

	prepare(&m, arg);
	rc = begin_counting();
	if (rc)
		return rc;
	before = atomic_load(&allocations);
	for (unsigned int i = 1000; i < OPERATIONS; i += 100)
		if (speckv_put(m.pool, &m.puts[i], 100) != 100)
			return 1;
	for (unsigned int i = 0; i < OPERATIONS; i++) {
		struct speckv_request get = {
			.key = m.keys[i], .buffer = m.out, .buffer_bytes = SMALL_BYTES
		};

		hits += speckv_get(m.pool, &get, 1) == 1;
	}
	hits += (uint64_t)speckv_lookup(m.pool, m.keys, OPERATIONS, m.present);
	for (unsigned int i = 0; i < OPERATIONS; i += 10)
		hits += (uint64_t)speckv_lookup_prefix(m.pool, &m.keys[i], 10);
	hits += (uint64_t)speckv_touch(m.pool, m.keys, OPERATIONS);
	hits += (uint64_t)speckv_drop(m.pool, m.keys, OPERATIONS);
	if (system_calls || atomic_load(&allocations) != before || !hits) {
		snprintf(text, sizeof(text),
			"%d system calls (the last is number %d), %llu allocations, %llu hits\n",
			(int)system_calls, (int)last_call,
			(unsigned long long)(atomic_load(&allocations) - before),
			(unsigned long long)hits);
		say(text);
		return 1;
	}
	say("9,000 puts with eviction; 10,000 each of get, lookup, prefix, touch, drop: no system call, no allocation\n");
	return 0;
}

int main(void)
{
	uint64_t seed = 5;
	struct calibration_file file = random_calibration(&seed,
		&(struct calibration_shape){ .layers = 2,
			.kv_heads = 1,
			.head_dim = 64,
			.bits = 3,
			.rotary = "halves",
			.unit = -10 });
	int status;

	if (!COUNTED) {
		puts("a sanitizer stands in front of malloc");
		return SKIP;
	}
	test_begin(60);
	status = wait_child(spawn(measure, NULL));
	if (!status)
		status = wait_child(spawn(measure, &file));
	test_end();
	free(file.bytes);
	if (status == SKIP)
		puts("no seccomp filter here, or a clock that is a system call");
	return status == SKIP ? SKIP : status != 0;
}
