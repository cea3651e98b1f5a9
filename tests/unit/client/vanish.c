// SPDX-License-Identifier: MIT
/* A pool whose file goes or shrinks under its clients: calls end with -ESTALE, nobody dies, and what is left is called lost or damaged. */
#include "client/internal.h"

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
	CHECK(strstr(speckv_strerror(test_ctx), "removed or cut short"), "%s", speckv_strerror(test_ctx));
	CHECK(state_of(dev) == (keep < 0 ? SPECKV_POOL_LOST : SPECKV_POOL_DAMAGED), "state %u", state_of(dev));
	speckv_pool_close(pool);
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

	test_begin(60);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = MEDIUM_DRAM; kind <= MEDIUM_FILE; kind++) {
		one((enum media)kind, -1);
		one((enum media)kind, 0);
		one((enum media)kind, 4096);
		one((enum media)kind, 2 * (off_t)MIB + 8192);
	}
	snprintf(name, sizeof(name), "host:DRAM");
	EXPECT(-SIGBUS, wait_child(spawn(foreign, name)));
	free(buffer);
	test_end();
	return 0;
}
