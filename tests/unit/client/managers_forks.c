// SPDX-License-Identifier: MIT
/* What fork() does to the handles and locks of a process. */
#include <stdatomic.h>

#include "managers.h"

static _Atomic uint32_t *flag;
static uint8_t *buffer;

static int none(const struct speckv_pool_info *info, void *arg)
{
	return 1;
}
static int no_tenant(const struct speckv_tenant_info *info, void *arg)
{
	return 1;
}
static int no_client(const struct speckv_client_info *info, void *arg)
{
	return 1;
}
static int no_event(const struct speckv_event *event, void *arg)
{
	return 1;
}

/* In the child every call on the parent's handles is refused; the parent's go on. */
static void handles_end_at_fork(struct speckv_device *dev)
{
	struct speckv_pool *pool = attach_pool(dev, "pool", "parent");
	struct speckv_pool_config config = small_pool("new", 2 * MIB);
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	struct speckv_key key = key_of(1);
	struct speckv_check_report report;
	struct speckv_device_info info;
	struct speckv_pool_info pool_info;
	struct speckv_stats stats;
	struct speckv_op *op, *done;
	struct speckv_mem *mem, *more;
	struct speckv_pool *other;
	char value[32];
	uint8_t present;
	void *pointer;
	pid_t pid;

	EXPECT(0, put_number(pool, 1, buffer));
	EXPECT(0, speckv_mem_alloc(pool, 1000, &mem));
	EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, &request, 1, &done));
	EXPECT(1, speckv_op_wait(done, -1));
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
#define GONE(call) REFUSED(-EOWNERDEAD, "fork", call)
		GONE(speckv_put(pool, &request, 1));
		GONE(speckv_get(pool, &request, 1));
		GONE(speckv_lookup(pool, &key, 1, &present));
		GONE(speckv_lookup_prefix(pool, &key, 1));
		GONE(speckv_prefetch(pool, &key, 1));
		GONE(speckv_touch(pool, &key, 1));
		GONE(speckv_drop(pool, &key, 1));
		GONE(speckv_children(pool, &key, &key, 1));
		GONE(speckv_submit(pool, SPECKV_OP_GET, &request, 1, &op));
		GONE(speckv_param_set(pool, "verify", "on"));
		GONE(speckv_param_get(pool, "verify", value, sizeof(value)));
		GONE(speckv_mem_alloc(pool, 100, &more));
		GONE(speckv_mem_access(mem, 0, 1, &pointer));
		GONE(speckv_mem_prefetch(mem, 0, 1));
		GONE(speckv_mem_seal(mem, &request));
		GONE(speckv_pool_open(dev, "pool", NULL, &other));
		GONE(speckv_pool_create(dev, &config, NULL));
		GONE(speckv_pool_info(dev, "pool", &pool_info));
		GONE(speckv_pool_foreach(dev, none, NULL));
		GONE(speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
		GONE(speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &config, NULL));
		GONE(speckv_pool_check(dev, "pool", 0, NULL, NULL, &report));
		GONE(speckv_pool_destroy(dev, "pool", NULL, NULL));
		GONE(speckv_pool_stats(dev, "pool", &stats));
		GONE(speckv_pool_stats_reset(dev, "pool"));
		GONE(speckv_pool_tenants(dev, "pool", no_tenant, NULL));
		GONE(speckv_pool_clients(dev, "pool", no_client, NULL));
		GONE(speckv_events(dev, NULL, 0, no_event, NULL));
		GONE(speckv_events(dev, "pool", 0, no_event, NULL));
		GONE(speckv_device_info(dev, &info));
		GONE(speckv_device_selftest(dev, NULL, NULL));
		speckv_op_release(done);
		speckv_mem_free(mem);
		speckv_pool_close(pool); /* closing is allowed, and takes nothing from the parent */
		speckv_device_close(dev);
		other = attach_pool(open_device(MEMORY, 0), "pool", "child");
		EXPECT(0, get_number(other, 1, buffer));
		speckv_pool_close(other);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
	EXPECT(0, get_number(pool, 1, buffer));
	EXPECT(0, speckv_mem_access(mem, 0, 1000, &pointer));
	CHECK(all_bytes(pointer, 1000, 0), "the allocation is the parent's still");
	EXPECT(0, check_pool(dev, "pool", 0, &report));
	CHECK(report.clients_dead == 0, "and it lives");
	speckv_op_release(done);
	speckv_pool_close(pool);
}

static int has_child_that_lives_on(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), "pool", "gone");
	struct speckv_mem *mem;

	EXPECT(0, speckv_mem_alloc(pool, 100000, &mem));
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, 0);
		atomic_store(flag, (uint32_t)getpid());
		for (;;)
			pause();
	}
	while (!atomic_load(flag))
		sleep_us(100);
	raise(SIGKILL);
	return 0;
}

/* Locks die with the process that took them, though a forked child of it lives on. */
static void locks_die_with_their_process(struct speckv_device *dev)
{
	struct speckv_check_report report;
	pid_t child;

	atomic_store(flag, 0);
	EXPECT(-SIGKILL, wait_child(spawn(has_child_that_lives_on, NULL)));
	child = (pid_t)atomic_load(flag);
	CHECK(kill(child, 0) == 0, "the child lives");
	EXPECT(-EUCLEAN, check_pool(dev, "pool", 0, &report));
	CHECK(report.clients_dead == 1 && report.pages_leaked > 0 && report.pages_allocated == 0,
		"and its parent is known to be dead");
	speckv_pool_close(attach_pool(dev, "pool", "next"));
	expect_sound(dev, "pool", -1);
	kill(child, SIGKILL);
}

void managers_fork(struct speckv_device *dev)
{
	flag = shared_memory(sizeof(*flag));
	buffer = line_alloc(2 * SMALL_BYTES);
	handles_end_at_fork(dev);
	locks_die_with_their_process(dev);
	free(buffer);
}
