// SPDX-License-Identifier: MIT
/* What another writer of a table sets in it, at any instant, directs no manager. */
#include <sys/random.h>
#include <sys/syscall.h>

#include "trust.h"

static int turns_its_extents(void *arg)
{
	struct lay_pool_record *record = ((struct lay_device *)arg)->pools;
	_Atomic uint32_t *extents;

	while (!load_acquire(&record->state))
		record++;
	extents = (_Atomic uint32_t *)&record->extents;
	for (uint32_t n = 0;; n++)
		store_release(extents, n % 3 == 0 ? 2 : n % 3 == 1 ? 0 : 4000000);
	return 0;
}

/*
 * What a writer of a medium of fixed size sets in its table, before it is opened or while it is
 * used, is checked in a copy.
 */
static void a_writer_of_a_table_directs_no_manager(void)
{
	char name[300];
	struct speckv_device *dev;
	struct lay_superblock super;
	struct lay_device *table;
	int fd;
	pid_t pid;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 2 * MIB);
	config.max_bytes = 8 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	fd = open(name + 5, O_RDWR | O_CLOEXEC);
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(fd >= 0 && table != MAP_FAILED, "%s", name);
	pid = spawn(turns_its_extents, table);
	for (int i = 0; i < 4000; i++) {
		int rc = speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL,
			NULL);

		CHECK(rc == 0 || rc == -ENOENT || rc == -EUCLEAN || rc == -ENOSPC || rc == -EBUSY ||
				rc == -EBADMSG,
			"%d (%s)", rc, speckv_strerror(test_ctx));
	}
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&table->pools[i].state))
			table->pools[i].extents = 2;
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	expect_sound(dev, "pool", -1);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);

	/* "made by the library, and its to remove": also with a checksum that is right */
	memcpy((void *)&super, (const void *)&table->super, sizeof(super));
	super.made_file = 1;
	atomic_init(&super.state, LAY_MEDIUM_READY);
	super.crc = speckv_crc32c(0, &super, offsetof(struct lay_superblock, crc));
	memcpy((void *)&table->super, (const void *)&super, sizeof(super));
	remove_device(name);
	CHECK(access(name + 5, F_OK) == 0, "a manager was led to remove %s", name + 5);
	munmap(table, sizeof(*table));
	close(fd);
	unlink(name + 5);
}

/* In front of the C library's: what another writer of the table does while it is flushed. */
static struct lay_pool_record *shortened;

int msync(void *address, size_t bytes, int flags)
{
	if (shortened && load_acquire(&shortened->state) == SPECKV_POOL_RESIZING) {
		shortened->extent[1].bytes -= LAY_UNIT;
		shortened = NULL;
	}
	return (int)syscall(SYS_msync, address, bytes, flags);
}

/* The same, just before a new pool gets its uuid. */
static struct lay_pool_record *occupied;

ssize_t getrandom(void *buffer, size_t bytes, unsigned int flags)
{
	if (occupied) {
		memcpy(occupied->name, "wide", sizeof("wide"));
		occupied->extent[0] = (struct lay_extent){ LAY_UNIT, 94 * MIB };
		occupied->extents = 1;
		store_release(&occupied->state, SPECKV_POOL_ACTIVE);
		occupied = NULL;
	}
	return syscall(SYS_getrandom, buffer, bytes, flags);
}

/*
 * Room for a pool that the table says is gone, after it was looked for: no pool is made, least of
 * all in the place of the table.
 */
static void a_table_that_fills_under_a_creation_refuses_it(void)
{
	char name[300];
	struct lay_pool_record *last;
	struct speckv_device *dev;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 4 * MIB);
	last = occupied = &dev->table->pools[LAY_POOLS - 1];
	REFUSED(-ENOSPC, "pool pool needs", speckv_pool_create(dev, &config, NULL));
	CHECK(!occupied && dev->table->super.magic == LAY_DEVICE_MAGIC,
		"the table was overwritten");
	store_release(&last->state, 0);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + 5);
}

/*
 * What a pool grows into is zeroed as far as the table says that it is there, which is less by now.
 */
static void a_table_that_shrinks_under_a_growth_refuses_it(void)
{
	char name[300];
	struct speckv_pool_info info;
	struct speckv_device *dev;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 4 * MIB);
	config.max_bytes = 16 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	shortened = record_of(dev, "pool");
	REFUSED(-EUCLEAN, "cannot grow",
		speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	CHECK(!shortened, "nothing came between");
	record_of(dev, "pool")->extent[1].bytes = 4 * MIB;
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, &info));
	CHECK(info.config.capacity_bytes == 8 * MIB, "%llu bytes",
		(unsigned long long)info.config.capacity_bytes);
	expect_sound(dev, "pool", 0);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + 5);
}

int main(void)
{
	begin_as_root(100);
	a_writer_of_a_table_directs_no_manager();
	a_table_that_shrinks_under_a_growth_refuses_it();
	a_table_that_fills_under_a_creation_refuses_it();
	test_end();
	return 0;
}
