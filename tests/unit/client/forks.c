// SPDX-License-Identifier: MIT
/*
 * fork() while other threads are in the library: children end their parent's handles without a
 * hang, a fault, or a loss to the parent.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "client/admin/admin.h"

#include "harness.h"

#define BUSY 3
#define KEYS 8

static _Atomic bool stop;
static struct speckv_pool *pool;
static struct speckv_device *dev;
static unsigned int rounds = 60;

/*
 * Every lock of a pool is held by one of these threads now and then: workers, staging, allocations,
 * lanes of a card.
 */
static void *busy(void *arg)
{
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);
	uint64_t n = (uintptr_t)arg;

	while (!atomic_load(&stop)) {
		struct speckv_request request = {
			.key = key_of(n % KEYS), .buffer = buffer, .buffer_bytes = SMALL_BYTES
		};
		struct speckv_mem *mem;
		struct speckv_op *op;

		EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, &request, 1, &op));
		EXPECT(1, speckv_op_wait(op, -1));
		speckv_op_release(op);
		EXPECT(0, speckv_mem_alloc(pool, SMALL_BYTES, &mem));
		speckv_mem_free(mem);
		CHECK(speckv_prefetch(pool, &request.key, 1) >= 0, "prefetch");
		EXPECT(0, get_number(pool, n++ % KEYS, buffer));
	}
	free(buffer);
	return NULL;
}

/*
 * ThreadSanitizer's allocator takes spin locks that another thread may have held at fork()
 * (DenseSlabAlloc::Drain, GCC 12): a child that frees may wait for one for ever. There a child may
 * end by its alarm; elsewhere none may.
 */
static int fork_outcome(pid_t pid)
{
	int rc = wait_child(pid);

#ifdef __SANITIZE_THREAD__
	if (rc == -SIGALRM)
		return 0;
#endif
	return rc;
}

static void child_alarm(void) /* timers end at fork() */
{
#ifdef __SANITIZE_THREAD__
	alarm(20);
#else
	alarm(sanitized() ? 120 : 30);
#endif
}

static void child(struct speckv_op *op, struct speckv_mem *mem, uint8_t *bytes, uint8_t *buffer)
{
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	struct speckv_pool_info info;

	child_alarm();
	REFUSED(-EOWNERDEAD, "fork", speckv_op_poll(op));
	REFUSED(-EOWNERDEAD, "fork", speckv_op_wait(op, -1));
	REFUSED(-EOWNERDEAD, "fork", speckv_get(pool, &request, 1));
	REFUSED(-EOWNERDEAD, "fork", speckv_pool_info(dev, "pool", &info));
	if (!test_on_card()) {
		/* there an allocation's bytes are the process's own until it is sealed */
		CHECK(all_bytes(bytes, SMALL_BYTES, 0), "the parent's memory is not seen");
		memset(bytes, 1, SMALL_BYTES);
	}
	speckv_op_release(op);
	speckv_mem_free(mem);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	_exit(0);
}

static void children_end_what_they_inherit(void)
{
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	pthread_t threads[BUSY];

	for (uintptr_t i = 0; i < BUSY; i++)
		CHECK(pthread_create(&threads[i], NULL, busy, (void *)i) == 0, "thread");
	for (unsigned int round = 0; round < rounds; round++) {
		struct speckv_mem *mem;
		struct speckv_op *op;
		void *bytes;
		pid_t pid;

		EXPECT(0, speckv_mem_alloc(pool, SMALL_BYTES, &mem));
		EXPECT(0, speckv_mem_access(mem, 0, SMALL_BYTES, &bytes));
		memset(bytes, 7, SMALL_BYTES);
		EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, &request, 1, &op));
		if (round % 2) /* complete, or on its way */
			EXPECT(1, speckv_op_wait(op, -1));
		fflush(NULL);
		pid = fork();
		CHECK(pid >= 0, "fork");
		if (!pid)
			child(op, mem, bytes, buffer + SMALL_BYTES);
		EXPECT(0, fork_outcome(pid));
		EXPECT(1, speckv_op_wait(op, -1));
		CHECK(all_bytes(bytes, SMALL_BYTES, 7), "the child wrote to its parent's memory");
		speckv_op_release(op);
		speckv_mem_free(mem);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < BUSY; i++)
		pthread_join(threads[i], NULL);
	free(buffer);
}

static bool mapped_within(const uint8_t *from, uint64_t bytes, const uint8_t *at)
{
	return at >= from && at < from + bytes;
}

/*
 * Where the parent had its mappings, nothing of the child's own can lie that closing the handles
 * would take away.
 */
static void closing_takes_nothing_of_the_childs_own(void)
{
	enum { MAPS = 64, EACH = 1 << 20 };
	const uint8_t *base = pool->region.base;
	uint64_t bytes = pool->region.mapped_bytes;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
		uint8_t *own[MAPS];

		for (int i = 0; i < MAPS; i++) {
			own[i] = mmap(NULL, EACH, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			CHECK(own[i] != MAP_FAILED && !mapped_within(base, bytes, own[i]),
				"the hole was taken");
			memset(own[i], i, EACH);
		}
		speckv_pool_close(pool);
		speckv_device_close(dev);
		for (int i = 0; i < MAPS; i++)
			CHECK(all_bytes(own[i], EACH, (uint8_t)i), "map %d", i);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
}

/* A connection that a child inherited would keep the card serving a parent that died. */
static int dies_with_a_child(void *arg)
{
	pid_t *out = arg;
	struct speckv_pool *mine = attach_pool(open_device(MEMORY, 0), "pool", "gone");
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);

	EXPECT(0, get_number(mine, 1, buffer));
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, 0);
		*out = getpid();
		for (;;)
			pause();
	}
	while (!*(volatile pid_t *)out)
		sleep_us(100);
	raise(SIGKILL);
	return 0;
}

static int count_function(const struct speckv_card_grant *grant, void *arg)
{
	*(unsigned int *)arg += 1;
	return 0;
}

static unsigned int granted(void)
{
	struct speckv_admin *admin;
	unsigned int count = 0;

	EXPECT(0, speckv_admin_open(test_ctx, MEMORY, &admin));
	EXPECT(0, speckv_admin_grants(admin, count_function, &count));
	speckv_admin_close(admin);
	return count;
}

static void connections_end_with_their_process(void)
{
	pid_t *left = shared_memory(sizeof(*left));
	unsigned int before = granted();

	EXPECT(-SIGKILL, wait_child(spawn(dies_with_a_child, left)));
	for (int i = 0; granted() != before; i++) {
		CHECK(i < 1000, "the card still serves a process that is gone");
		sleep_us(10000);
	}
	kill(*left, SIGKILL);
	speckv_pool_close(attach_pool(dev, "pool", "next")); /* gives back what it held */
}

static void an_administrators_connection_ends_at_fork(void)
{
	struct speckv_card_health health;
	struct speckv_admin *admin;
	pid_t pid;

	EXPECT(0, speckv_admin_open(test_ctx, MEMORY, &admin));
	EXPECT(0, speckv_admin_firmware_lock(admin, 0));
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
		REFUSED(-EOWNERDEAD, "fork", speckv_admin_health(admin, &health));
		REFUSED(-EOWNERDEAD, "fork", speckv_admin_firmware_lock(admin, 0));
		speckv_admin_close(admin);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
	EXPECT(0, speckv_admin_health(admin, &health));
	speckv_admin_close(admin);
}

static void *opens_and_closes(void *arg)
{
	(void)arg;
	while (!atomic_load(&stop)) {
		struct speckv_device *own = open_device(MEMORY, 0);

		for (int i = 0; i < 4; i++)
			speckv_pool_close(attach_pool(own, "pool", "comes"));
		speckv_device_close(own);
	}
	return NULL;
}

/*
 * A child that is forked while others open and close pools has none of the descriptors that locks
 * are held through: they would outlive the parent.
 */
static void no_child_inherits_locks(void)
{
	unsigned int inherited = 0;
	pthread_t threads[BUSY];

	atomic_store(&stop, false);
	for (int i = 0; i < BUSY; i++)
		CHECK(pthread_create(&threads[i], NULL, opens_and_closes, NULL) == 0, "thread");
	for (unsigned int round = 0; round < 10 * rounds; round++) {
		pid_t pid = fork();

		CHECK(pid >= 0, "fork");
		if (!pid) {
			/*
			 * nothing but system calls: the other thread may have held any lock of the
			 * C library's
			 */
			child_alarm();
			for (int fd = 3; fd < 256; fd++) {
				char path[32], target[300];
				ssize_t got;

				snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
				got = readlink(path, target, sizeof(target));
				if (got > 5 && memcmp(target + got - 5, ".lock", 5) == 0)
					_exit(1);
			}
			_exit(0);
		}
		inherited += fork_outcome(pid) != 0;
	}
	atomic_store(&stop, true);
	for (int i = 0; i < BUSY; i++)
		pthread_join(threads[i], NULL);
	CHECK(inherited == 0, "%u of %u children", inherited, 10 * rounds);
}

int main(void)
{
	struct speckv_pool_config config;
	uint8_t *buffer;

	test_begin(100);
	if (sanitized())
		rounds = 15;
	buffer = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	config = small_pool("pool", 8 * MIB);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "parent");
	for (uint64_t i = 0; i < KEYS; i++)
		EXPECT(0, put_number(pool, i, buffer));
	children_end_what_they_inherit();
	closing_takes_nothing_of_the_childs_own();
	no_child_inherits_locks();
	if (test_on_card()) {
		connections_end_with_their_process();
		an_administrators_connection_ends_at_fork();
	}
	speckv_pool_close(pool);
	expect_sound(dev, "pool", KEYS);
	speckv_device_close(dev);
	free(buffer);
	test_end();
	return 0;
}
