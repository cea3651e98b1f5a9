// SPDX-License-Identifier: MIT
/*
 * A pool whose file goes or shrinks under its clients: calls end with -ESTALE, no process dies, and
 * what is left is called lost or damaged.
 */
#include "client/admin/admin.h"

#include "harness.h"

static uint8_t *buffer;

static uint32_t state_of(struct speckv_device *dev)
{
	struct speckv_pool_info info;

	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(!info.accessible, "accessible");
	return info.state;
}

static void one(enum media kind, off_t keep)
{
	char name[300], path[SPECKV_PATH_BYTES];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct speckv_pool *pool;
	struct stat st;
	int rc;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", NULL);
	EXPECT(0, medium_pool_path(&dev->medium, "pool", path));
	for (uint64_t i = 0; i < 8; i++)
		EXPECT(0, put_number(pool, i, buffer));
	if (keep < 0) {
		CHECK(unlink(path) == 0, "%s", path);
		sleep_us(1100000); /* a look is at most a second away */
	} else {
		CHECK(stat(path, &st) == 0 && truncate(path, keep) == 0, "%s", path);
	}
	rc = get_number(pool, 3, buffer); /* reads what is gone */
	CHECK(rc == -ESTALE || (rc == 0 && keep > 0), "%d", rc);
	for (uint64_t i = 100; i < 400; i++) {
		rc = put_number(pool, i, buffer);
		if (rc)
			break;
	}
	EXPECT(-ESTALE, rc);
	EXPECT(-ESTALE, get_number(pool, 3, buffer));
	CHECK(strstr(speckv_strerror(test_ctx), "removed or truncated"), "%s",
		speckv_strerror(test_ctx));
	CHECK(state_of(dev) == (keep < 0 ? SPECKV_POOL_LOST : SPECKV_POOL_DAMAGED), "state %u",
		state_of(dev));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
}

/*
 * Every call of a client, each on an attachment of its own that has seen the pool whole: what it
 * says first, with the file gone.
 */
enum call {
	CALL_PUT,
	CALL_GET,
	CALL_LOOKUP,
	CALL_LOOKUP_PREFIX,
	CALL_CHILDREN,
	CALL_TOUCH,
	CALL_DROP,
	CALL_PREFETCH,
	CALL_ALLOC,
	CALL_SUBMIT,
	CALLS
};
static const char *const call_names[CALLS] = { "put", "get", "lookup", "lookup_prefix", "children",
	"touch", "drop", "prefetch", "mem_alloc", "submit" };

static int submitted(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	struct speckv_request requests[4] = { 0 };
	struct speckv_op *op;
	int rc;

	for (size_t i = 0; i < n; i++)
		requests[i].key = keys[i];
	EXPECT(0, speckv_submit(pool, SPECKV_OP_LOOKUP, requests, n, &op));
	rc = speckv_op_wait(op, -1);
	speckv_op_release(op);
	for (size_t i = 1; i < n; i++)
		EXPECT(requests[0].status, requests[i].status);
	return requests[0].status ? requests[0].status : rc;
}

static int call(enum call which, struct speckv_pool *pool, struct speckv_mem **mem)
{
	struct speckv_key keys[4] = { key_of(0), key_of(1), key_of(2), key_of(3) },
			  own = key_of(40), children[4];
	uint8_t present[4];

	switch (which) {
	case CALL_PUT:
		return put_number(pool, 50, buffer);
	case CALL_GET:
		return get_number(pool, 3, buffer);
	case CALL_LOOKUP:
		return speckv_lookup(pool, keys, 4, present);
	case CALL_LOOKUP_PREFIX:
		return speckv_lookup_prefix(pool, keys, 4);
	case CALL_CHILDREN:
		return speckv_children(pool, keys, children, 4);
	case CALL_TOUCH:
		return speckv_touch(pool, keys, 4);
	case CALL_DROP:
		return speckv_drop(pool, &own, 1);
	case CALL_PREFETCH:
		return speckv_prefetch(pool, keys, 1);
	case CALL_ALLOC:
		return speckv_mem_alloc(pool, 4096, mem);
	default:
		return submitted(pool, keys, 4);
	}
}

static void every_call(enum media kind, bool removed)
{
	static const int whole[CALLS] = { 0, 0, 4, 4, 0, 4, 0, 1, 0, 4 };
	char name[300], path[SPECKV_PATH_BYTES];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct speckv_pool *pools[CALLS];
	struct speckv_mem *mem = NULL, *more = NULL;
	void *at;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, medium_pool_path(&dev->medium, "pool", path));
	for (int i = 0; i < CALLS; i++) {
		pools[i] = attach_pool(dev, "pool", NULL);
		for (uint64_t number = 0; !i && number < 8; number++)
			EXPECT(0, put_number(pools[0], number, buffer));
		if (i == CALL_DROP)
			EXPECT(0, put_number(pools[i], 40, buffer));
		CHECK(call((enum call)i, pools[i], &mem) == whole[i] + (i == CALL_DROP),
			"%s of a whole pool", call_names[i]);
	}
	CHECK(removed ? unlink(path) == 0 : truncate(path, 2 * (off_t)MIB) == 0, "%s", path);
	sleep_us(1100000); /* a look is at most a second away */
	for (int i = 0; i < CALLS; i++) {
		int rc = call((enum call)i, pools[i], &more);

		CHECK(rc == -ESTALE, "%s: %d, not -ESTALE", call_names[i], rc);
	}
	EXPECT(-ESTALE, speckv_mem_access(mem, 0, 64, &at));
	EXPECT(-ESTALE, speckv_mem_prefetch(mem, 0, 64));
	speckv_mem_free(mem);
	for (int i = 0; i < CALLS; i++)
		speckv_pool_close(pools[i]);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
}

/*
 * Without its file of locks it cannot be told who uses a pool: it stays, until a repair made them
 * again.
 */
static void a_pool_without_its_locks_is_not_removed(enum media kind)
{
	char name[300], path[SPECKV_PATH_BYTES], lock[48];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct speckv_pool *pool, *other;
	struct speckv_check_report report;
	struct lay_pool_record *record;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", NULL);
	record = &dev->table->pools[pool->region.record];
	pool_hidden_name(record, "lock", lock);
	EXPECT(0, medium_pool_path(&dev->medium, lock, path));
	for (uint64_t i = 0; i < 50; i++)
		EXPECT(0, put_number(pool, i, buffer));
	for (int removal = 0; removal < 2; removal++) {
		/* and after a manager that died in a removal, before or after the locks went */
		CHECK(removal || unlink(path) == 0, "%s", path);
		store_release(&record->state,
			removal ? SPECKV_POOL_DESTROYING : SPECKV_POOL_ACTIVE);
		REFUSED(-ENOLCK, "--repair'", speckv_pool_open(dev, "pool", NULL, &other));
		REFUSED(-ENOLCK, "--repair'", speckv_pool_destroy_check(dev, "pool"));
		REFUSED(-ENOLCK, "--repair'", speckv_pool_destroy(dev, "pool", NULL, NULL));
		REFUSED(-ENOLCK, "--repair'",
			speckv_device_remove(test_ctx, name,
				SPECKV_REMOVE_POOLS | SPECKV_REMOVE_DRY_RUN));
		REFUSED(-ENOLCK, "--repair'",
			speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS));
		store_release(&record->state,
			removal ? SPECKV_POOL_DESTROYING : SPECKV_POOL_ACTIVE);
		/* a manager that comes next, and finishes what it finds */
		config = small_pool("next", 2 * MIB);
		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		EXPECT(0, speckv_pool_destroy(dev, "next", NULL, NULL));
	}
	for (uint64_t i = 0; i < 50; i++)
		EXPECT(0, get_number(pool, i, buffer));
	store_release(&record->state, SPECKV_POOL_ACTIVE);
	speckv_pool_close(pool);
	store_release(&record->state, SPECKV_POOL_DESTROYING);
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_REPAIR, &report));
	CHECK(report.repaired == 1, "%llu", (unsigned long long)report.repaired);
	pool = attach_pool(dev, "pool", NULL);
	REFUSED(-EBUSY, "in use by", speckv_pool_destroy(dev, "pool", NULL, NULL));
	for (uint64_t i = 0; i < 50; i++)
		EXPECT(0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, "pool", 50);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
}

/* A fault that is not ours does what it did before. */
static int foreign(void *arg)
{
	struct speckv_device *dev = open_device(arg, SPECKV_OPEN_CREATE);
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	volatile uint8_t *at;

	CHECK(dev && fd >= 0 && ftruncate(fd, 4096) == 0, "memfd");
	at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED && ftruncate(fd, 0) == 0, "cut");
	return *at;
}

int main(void)
{
	char name[300];
	int rc;

	test_begin(60);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = MEDIUM_DRAM; kind <= MEDIUM_FILE; kind++) {
		one((enum media)kind, -1);
		one((enum media)kind, 0);
		one((enum media)kind, 4096);
		one((enum media)kind, 2 * (off_t)MIB + 8192);
		every_call((enum media)kind, true);
		every_call((enum media)kind, false);
		a_pool_without_its_locks_is_not_removed((enum media)kind);
	}
	snprintf(name, sizeof(name), "host:DRAM");
	rc = wait_child(spawn(foreign, name));
	/* a sanitizer reports it, and ends the process in its own way */
	CHECK(rc == -SIGBUS || (sanitized() && (rc == -SIGABRT || rc == 66)), "%d", rc);
	free(buffer);
	test_end();
	return 0;
}
