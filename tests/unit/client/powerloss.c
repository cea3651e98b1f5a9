// SPDX-License-Identifier: MIT
/*
 * Power loss, replayed. A run of operations on a medium is recorded: what was stored between
 * flushes, what each flush covered, which names came and went. From the record states are made that
 * the medium may be in when the power goes: any mixture, down to eight bytes, of what was stored
 * since a flush covered it, any of the names that no flush of their folder covered. In each of them
 * another boot finds what was acknowledged, and nothing else.
 */
#include <dirent.h>

#include "client/admin/admin.h"

#include "powerloss.h"

#define BLOCKS 64 /* numbers of blocks in one pool */

/* ---- what must be there --------------------------------------------------------------------- */

#define ABSENT 1u
#define PRESENT 2u

/* What another boot may find: both bits while an operation is under way. */
static struct {
	char name[300];
	uint8_t medium, registered;
	struct {
		const char *name;
		uint8_t there;
		uint64_t size, size_before;
		uint8_t block[BLOCKS];
		bool evicts;
	} pool[2];
} model;

static uint64_t seed = 20261201;
static unsigned int samples, states;

/* ---- another boot --------------------------------------------------------------------------- */

#define BOOT_A "11111111-2222-3333-4444-555555555555\n"
#define BOOT_B "66666666-7777-8888-9999-aaaaaaaaaaaa\n"

static const char *boot = BOOT_A;
static uint8_t *buffer;

/* In front of the C library's: which boot this is. */
FILE *fopen(const char *path, const char *mode)
{
	int fd;

	if (strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		return fmemopen((void *)(uintptr_t)boot, strlen(boot), "r");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? NULL : fdopen(fd, "r");
}

static void verify_pool(struct speckv_device *dev, int p)
{
	const char *name = model.pool[p].name;
	struct speckv_pool_info info;
	struct lay_pool_record record;
	struct speckv_pool *pool;
	char path[SPECKV_PATH_BYTES];
	int rc = device_look(dev, name, &record);
	uint64_t i;

	EXPECT(0, medium_pool_path(&dev->medium, name, path));
	if (rc < 0) {
		CHECK(model.pool[p].there & ABSENT, "pool %s is lost", name);
		CHECK(access(path, F_OK) != 0, "pool %s is gone, and its file is still there",
			name);
		return;
	}
	CHECK(model.pool[p].there & PRESENT, "pool %s has risen", name);
	EXPECT(0, speckv_pool_info(dev, name, &info));
	CHECK(info.accessible && info.state == SPECKV_POOL_ACTIVE, "pool %s is in state %u: %s",
		name, info.state, speckv_strerror(test_ctx));
	CHECK(info.config.capacity_bytes == model.pool[p].size ||
			info.config.capacity_bytes == model.pool[p].size_before,
		"pool %s has %llu bytes", name, (unsigned long long)info.config.capacity_bytes);
	CHECK(record.capacity_bytes == info.config.capacity_bytes, "the table says %llu",
		(unsigned long long)record.capacity_bytes);
	pool = attach_pool(dev, name, "after");
	for (i = 0; i < BLOCKS; i++) {
		rc = get_number(pool, (uint64_t)p * 1000 + i, buffer);
		CHECK(rc == 0 || rc == -ENOENT, "block %llu: %d", (unsigned long long)i, rc);
		CHECK(rc != 0 || model.pool[p].block[i] & PRESENT, "block %llu has risen",
			(unsigned long long)i);
		CHECK(rc == 0 || model.pool[p].block[i] & ABSENT || model.pool[p].evicts,
			"block %llu is lost", (unsigned long long)i);
	}
	speckv_pool_close(pool);
	expect_sound(dev, name, -1);
	pool = attach_pool(dev, name, "after");
	for (i = 0; i < 3; i++) /* and it goes on */
		EXPECT(0, put_number(pool, 5000 + i, buffer));
	for (i = 0; i < 3; i++)
		EXPECT(0, get_number(pool, 5000 + i, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, name, -1);
}

static void verify(const char *at)
{
	char name[400], path[400];
	struct speckv_device_info info;
	struct speckv_device *dev;
	unsigned int links = 0, pools = 0, left = 0;
	struct dirent *entry;
	DIR *dir;

	/* the list of media at a path: as long as it names this one */
	TEXT(path, "%s/run/media", at);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		links += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	CHECK(links || model.registered & ABSENT, "the medium is not on the list any more");
	CHECK(!links || model.registered & PRESENT, "the medium is on the list again");
	TEXT(name, "host:%s/%s", at, model.name);
	EXPECT(0, speckv_device_probe(test_ctx, name, &info));
	if (info.state == SPECKV_MEDIUM_ABSENT) {
		CHECK(model.medium & ABSENT, "the medium is lost");
		return;
	}
	CHECK(info.state == SPECKV_MEDIUM_READY, "the medium is %s", info.found);
	CHECK(model.medium & PRESENT, "the medium has risen");
	dev = open_device(name, 0);
	EXPECT(0, device_manage(dev)); /* the next manager finishes what it finds */
	device_unmanage(dev);
	for (int p = 0; p < 2; p++)
		verify_pool(dev, p);
	for (int i = 0; i < LAY_POOLS; i++)
		pools += load_acquire(&dev->table->pools[i].state) != 0;
	TEXT(path, "%s/%s.pools", at, model.name);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		left += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			strcmp(entry->d_name, ".lock") != 0;
	if (dir)
		closedir(dir);
	CHECK(dev->single_inode || left == 2 * pools,
		"%u files of %u pools: each has one, and one for its locks", left, pools);
	speckv_device_close(dev);
}

struct sample {
	enum powerloss_mixture mixture;
	uint64_t state;
};

static int one_state(void *arg)
{
	struct sample *s = arg;
	char at[400], run[420];

	powerloss_recording = false;
	alarm(60);
	TEXT(at, "%s/state", test_dir);
	CHECK(mkdir(at, 0700) == 0, "mkdir");
	powerloss_make_state(at, s->mixture, &s->state);
	TEXT(run, "%s/state-run", test_dir);
	CHECK(setenv("SPECKV_RUNTIME_DIR", run, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	boot = BOOT_B;
	verify(at);
	return 0;
}

static void try_state(const char *when, enum powerloss_mixture mixture)
{
	struct sample s = { mixture, chance(&seed) };
	uint64_t number = s.state;
	char at[400];
	int rc = wait_child(spawn(one_state, &s));

	CHECK(rc == 0, "state %u, %s, mixture %d of seed %llu: %d", states, when, mixture,
		(unsigned long long)number, rc);
	TEXT(at, "%s/state", test_dir);
	nftw(at, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(at);
	TEXT(at, "%s/state-run", test_dir);
	nftw(at, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(at);
	states++;
}

/* The power goes here. */
void powerloss_crash(const char *when)
{
	size_t pending = powerloss_pending();

	powerloss_recording = false;
	try_state(when, NOTHING);
	if (pending)
		try_state(when, EVERYTHING);
	for (unsigned int i = 0; i < samples && pending; i++)
		try_state(when, CHANCE);
	powerloss_recording = true;
}

/* ---- what is done --------------------------------------------------------------------------- */

static struct speckv_device *dev;
static struct speckv_pool *pool;

static void acknowledged(const char *what)
{
	powerloss_look();
	powerloss_crash(what);
}

static void put_blocks(unsigned int first, unsigned int n)
{
	for (unsigned int i = first; i < first + n; i++) {
		model.pool[0].block[i] |= PRESENT;
		EXPECT(0, put_number(pool, i, buffer));
		model.pool[0].block[i] = PRESENT;
	}
	acknowledged("after puts");
}

static void drop_block(unsigned int i)
{
	struct speckv_key key = key_of(i);

	model.pool[0].block[i] |= ABSENT;
	EXPECT(1, speckv_drop(pool, &key, 1));
	model.pool[0].block[i] = ABSENT;
	acknowledged("after a drop");
}

static void make_pool(int p, const char *name, uint64_t bytes)
{
	struct speckv_pool_config config = small_pool(name, bytes);

	config.max_bytes = 8 * MIB;
	config.eviction = SPECKV_EVICT_NONE;
	model.pool[p].there |= PRESENT;
	model.pool[p].size = model.pool[p].size_before = bytes;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	model.pool[p].there = PRESENT;
	acknowledged("after a pool is made");
}

static void resize_pool(uint64_t bytes)
{
	model.pool[0].size = bytes;
	EXPECT(0, speckv_pool_resize(dev, "first", bytes, 0, NULL, NULL, NULL));
	model.pool[0].size_before = bytes;
	acknowledged("after a resize");
}

static void destroy_pool(int p)
{
	model.pool[p].there |= ABSENT;
	for (int i = 0; i < BLOCKS; i++)
		model.pool[p].block[i] |= ABSENT;
	EXPECT(0, speckv_pool_destroy(dev, model.pool[p].name, NULL, NULL));
	model.pool[p].there = ABSENT;
	memset(model.pool[p].block, ABSENT, BLOCKS);
	acknowledged("after a pool is destroyed");
}

static void begin(const char *name)
{
	memset(&model, 0, sizeof(model));
	TEXT(model.name, "%s", name);
	model.medium = model.registered = ABSENT;
	model.pool[0].name = "first";
	model.pool[1].name = "second";
	for (int p = 0; p < 2; p++) {
		model.pool[p].there = ABSENT;
		memset(model.pool[p].block, ABSENT, BLOCKS);
	}
	powerloss_forget();
}

static void one_medium(const char *leaf, bool fixed)
{
	unsigned int flags = SPECKV_OPEN_CREATE | (fixed ? SPECKV_OPEN_FORMAT : 0);
	char name[400], path[400];

	begin(leaf);
	TEXT(powerloss_root, "%s/record", test_dir);
	CHECK(mkdir(powerloss_root, 0700) == 0, "mkdir");
	TEXT(path, "%s/run", powerloss_root);
	CHECK(mkdir(path, 0755) == 0, "mkdir");
	TEXT(name, "host:%s/%s", powerloss_root, leaf);
	if (fixed) {
		int fd = open(name + 5, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		CHECK(fd >= 0 && ftruncate(fd, 20 * MIB) == 0, "%s", name);
		close(fd);
		/*
		 * formatting what somebody gave leaves no more promise than that it is refused when
		 * half done
		 */
		dev = open_device(name, flags);
	}
	powerloss_look();
	powerloss_keep();
	powerloss_recording = true;
	model.medium |= PRESENT;
	model.registered |= PRESENT;
	if (!fixed)
		dev = open_device(name, flags);
	else
		model.medium = PRESENT;
	model.medium = model.registered = PRESENT;
	acknowledged("after the medium is made");
	make_pool(0, "first", 4 * MIB);
	pool = attach_pool(dev, "first", "tenant");
	put_blocks(0, 5);
	drop_block(2);
	put_blocks(10, 3);
	put_blocks(2, 1);
	drop_block(10);
	make_pool(1, "second", 2 * MIB);
	resize_pool(6 * MIB);
	put_blocks(20, 3);
	for (unsigned int i = 0; i < 5; i++)
		drop_block(i);
	resize_pool(2 * MIB);
	put_blocks(30, 3);
	speckv_pool_close(pool);
	acknowledged("after the pool is closed");
	destroy_pool(1);
	pool = attach_pool(dev, "first", "another");
	put_blocks(40, 2);
	make_pool(1, "second", 2 * MIB);
	destroy_pool(1);
	speckv_pool_close(pool);
	destroy_pool(0);
	speckv_device_close(dev);
	if (!fixed) { /* closed for good: its name does not come back, nor leads to half of it */
		model.medium |= ABSENT;
		model.registered |= ABSENT;
		EXPECT(0, speckv_device_remove(test_ctx, name, 0));
		model.medium = ABSENT;
		acknowledged("after the medium is closed");
	}
	powerloss_recording = false;
	nftw(powerloss_root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(powerloss_root);
}

int main(int argc, char **argv)
{
	char run[300];

	samples = argc > 1 ? (unsigned int)strtoul(argv[1], NULL, 10) : 4;
	test_begin(3000);
	/* the list of media lies on the medium that the power takes away, too */
	TEXT(run, "%s/record/run", test_dir);
	CHECK(setenv("SPECKV_RUNTIME_DIR", run, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	buffer = line_alloc(2 * SMALL_BYTES);
	one_medium("medium.kv", false);
	one_medium("fixed.kv", true);
	free(buffer);
	printf("%u power-loss states: nothing lost, nothing risen, nothing leaked\n", states);
	test_end();
	return 0;
}
