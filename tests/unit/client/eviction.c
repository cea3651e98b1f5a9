// SPDX-License-Identifier: MIT
/*
 * What a full pool lets go: the ends of chains before their beginnings, the least recently used
 * first, whatever the clock says.
 */
#include <dlfcn.h>

#include "client/admin/admin.h"

#include "harness.h"

#define FITS 124 /* blocks of the small shape in 4 MiB, as they are */

static uint8_t *buffer;
static bool packed; /* blocks of many sizes */
static int64_t clock_shift; /* of the time of day, ns */
static bool clock_1970;

/* The time of day, as set with clock_settime(); no other clock can be set. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	static int (*real)(clockid_t, struct timespec *);
	int64_t ns;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	if (real(id, t) != 0)
		return -1;
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
		ns = clock_1970 ? 5000000000ll
				: (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + clock_shift;
		t->tv_sec = ns / 1000000000;
		t->tv_nsec = ns % 1000000000;
	}
	return 0;
}

/* Blocks first..first+n-1 as a chain behind `parent` (0: none). */
static int put_chain(struct speckv_pool *pool, uint64_t parent, uint64_t first, unsigned int n,
	unsigned int batch)
{
	static struct speckv_request requests[256];
	static uint8_t *bytes;
	int stored = 0;

	if (!bytes)
		bytes = line_alloc(256 * SMALL_BYTES);
	for (unsigned int i = 0; i < n; i += batch) {
		unsigned int m = n - i < batch ? n - i : batch;

		for (unsigned int j = 0; j < m; j++) {
			uint64_t number = first + i + j, before = i + j ? number - 1 : parent;

			requests[j] = (struct speckv_request){ .key = key_of(number),
				.buffer = bytes + j * SMALL_BYTES,
				.buffer_bytes = SMALL_BYTES };
			(packed ? fill_numbers : fill_block)(&requests[j].key, requests[j].buffer,
				SMALL_BYTES);
			if (before) {
				requests[j].parent = key_of(before);
				requests[j].flags = SPECKV_REQUEST_HAS_PARENT;
			}
		}
		stored += speckv_put(pool, requests, m);
	}
	return stored;
}

static unsigned int prefix(struct speckv_pool *pool, uint64_t first, unsigned int n)
{
	static struct speckv_key keys[4096];

	for (unsigned int i = 0; i < n; i++)
		keys[i] = key_of(first + i);
	return (unsigned int)speckv_lookup_prefix(pool, keys, n);
}

static bool there(struct speckv_pool *pool, uint64_t number)
{
	uint8_t present;

	return speckv_lookup(pool, &(struct speckv_key[]){ key_of(number) }[0], 1, &present) == 1;
}

static struct speckv_pool *new_pool(struct speckv_device *dev, uint64_t capacity, const char *codec)
{
	struct speckv_pool_config config = small_pool("pool", capacity);
	struct speckv_pool *pool;

	config.codec = (uint32_t)speckv_codec_from_name(codec);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	packed = strcmp(codec, "raw") != 0;
	return pool;
}

static void end_pool(struct speckv_device *dev, struct speckv_pool *pool)
{
	speckv_pool_close(pool);
	expect_sound(dev, "pool", -1);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
}

/*
 * Twice the same chain, each block after the other or many at once: the second time its beginning
 * is served.
 */
static void a_chain_longer_than_its_pool_keeps_its_beginning(struct speckv_device *dev,
	const char *codec, unsigned int chain, unsigned int batch, unsigned int least)
{
	struct speckv_pool *pool = new_pool(dev, 4 * MIB, codec);
	unsigned int served;

	CHECK(put_chain(pool, 0, 1, chain, batch) == (int)chain, "stored");
	served = prefix(pool, 1, chain);
	CHECK(served >= least, "%s, %u at once: %u of %u blocks are served, %u at least", codec,
		batch, served, chain, least);
	for (unsigned int i = 1; i <= served; i++)
		EXPECT(1, speckv_touch(pool, &(struct speckv_key[]){ key_of(i) }[0], 1));
	CHECK(put_chain(pool, served, served + 1, chain - served, batch) == (int)(chain - served),
		"stored again");
	served = prefix(pool, 1, chain);
	CHECK(served >= least, "%s, %u at once, again: %u of %u blocks are served, %u at least",
		codec, batch, served, chain, least);
	end_pool(dev, pool);
}

/* Sessions that grow in turns: what is stored of each is its beginning. */
static void sessions_keep_their_beginnings(struct speckv_device *dev)
{
	enum { SESSIONS = 20, TURNS = 12, GROWTH = 3 };
	struct speckv_pool *pool = new_pool(dev, 4 * MIB, "raw");
	unsigned int stored = 0, reached = 0, length = 0;

	for (unsigned int turn = 0; turn < TURNS; turn++, length += GROWTH)
		for (uint64_t s = 1; s <= SESSIONS; s++)
			put_chain(pool, length ? s * 1000 + length - 1 : 0, s * 1000 + length,
				GROWTH, 1);
	for (uint64_t s = 1; s <= SESSIONS; s++) {
		reached += prefix(pool, s * 1000, length);
		for (unsigned int i = 0; i < length; i++)
			stored += there(pool, s * 1000 + i);
	}
	CHECK(stored > FITS - 10 && reached * 10 >= stored * 9,
		"%u blocks are stored, and a look-up by prefix reaches %u", stored, reached);
	end_pool(dev, pool);
}

/* Of two sessions the one that is read stays whole, though its blocks are as old. */
static void the_session_in_use_stays(struct speckv_device *dev)
{
	enum { LENGTH = 40 };
	struct speckv_pool *pool = new_pool(dev, 4 * MIB, "raw");

	put_chain(pool, 0, 1000, LENGTH, 1);
	put_chain(pool, 0, 2000, LENGTH, 1);
	for (unsigned int i = 0; i < 100; i++) {
		put_chain(pool, 0, 10000 + i, 1, 1);
		for (unsigned int j = 0; j < LENGTH; j++)
			EXPECT(0, get_number(pool, 1000 + j, buffer));
	}
	CHECK(prefix(pool, 1000, LENGTH) == LENGTH, "of the session in use %u of %u stayed",
		prefix(pool, 1000, LENGTH), LENGTH);
	CHECK(prefix(pool, 2000, LENGTH) < LENGTH, "of the other something went");
	end_pool(dev, pool);
}

/* A block that came without its parent goes before one that is reached, until it is used. */
static void what_no_prefix_reaches_goes_first(struct speckv_device *dev)
{
	struct speckv_pool *pool = new_pool(dev, 4 * MIB, "raw");
	struct speckv_key children[8];
	unsigned int old = 0;

	put_chain(pool, 0, 1, FITS - 8, 1);
	for (uint64_t i = 0; i < 4; i++) {
		put_chain(pool, 900000, 5000 + 10 * i, 1, 1);
		if (i % 2 == 0)
			EXPECT(0, get_number(pool, 5000 + 10 * i, buffer));
	}
	put_chain(pool, 0, 7000, 8, 1); /* four of them find no room */
	CHECK(there(pool, 5000) && there(pool, 5020), "what was read stays");
	CHECK(!there(pool, 5030), "the last that came without its parent stayed");
	for (unsigned int i = 1; i <= FITS - 8; i++)
		old += there(pool, i);
	CHECK(prefix(pool, 1, FITS - 8) == old, "the chain was cut in the middle");
	/* a put that names the parent again, when it is there, ends that */
	put_chain(pool, 1, 5020, 1, 1);
	CHECK(speckv_children(pool, &(struct speckv_key[]){ key_of(1) }[0], children, 8) == 2,
		"the block is not among the children of its parent");
	end_pool(dev, pool);
}

/*
 * Where more room is wanted than an unreachable block takes, those beside it count with their own
 * uses.
 */
static void what_lies_beside_an_unreachable_block_counts_as_used(struct speckv_device *dev)
{
	enum { LOST = FITS / 2, BESIDE = 10 };
	struct speckv_pool_config keep = { .eviction = SPECKV_EVICT_NONE };
	struct speckv_pool *pool = new_pool(dev, 4 * MIB, "raw");
	struct region *r = &pool->region;
	uint64_t pages = region_pages(r), before, n = 0;
	struct speckv_key key = key_of(LOST);
	struct block_ref found;
	unsigned int hot = 0;

	/* no room is left, and nothing gone */
	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &keep, NULL));
	while (put_number(pool, n + 1, buffer) == 0)
		n++;
	CHECK(n >= FITS - 2 && index_find(r, &key, &found), "%llu blocks", (unsigned long long)n);
	evict_orphan(pool, &found);
	before = load_acquire(&r->head->stats.use_clock) + 1;
	for (uint64_t i = LOST - BESIDE; i <= LOST + BESIDE; i++)
		if (i != LOST)
			EXPECT(0, get_number(pool, i, buffer));
	EXPECT(EVICT_DONE, pages_evict(pool, 2 * found.pages, pages, ~0ull));
	for (uint64_t i = LOST - BESIDE; i <= LOST + BESIDE; i++)
		hot += i != LOST && there(pool, i);
	CHECK(hot == 2 * BESIDE, "of %d blocks in use %u stayed", 2 * BESIDE, hot);
	/* and where all others were used since, nothing is older */
	while (put_number(pool, n + 1, buffer) == 0)
		n++;
	for (uint64_t i = 1; i <= n; i++)
		if (i != LOST)
			get_number(pool, i, buffer);
	for (unsigned int tries = 0; tries < 20; tries++)
		EXPECT(EVICT_NONE, pages_evict(pool, 2 * found.pages, pages, before));
	CHECK(there(pool, LOST), "it stays");
	end_pool(dev, pool);
}

/* A tenant at its quota makes room at the ends of its own chains. */
static void a_tenants_quota_takes_ends_first(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);
	struct speckv_pool *a, *b;
	unsigned int served;

	config.tenant_quota_bytes = MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	a = attach_pool(dev, "pool", "a");
	b = attach_pool(dev, "pool", "b");
	put_chain(b, 0, 1000, 20, 1);
	put_chain(a, 1019, 2000, 60, 1); /* behind what b stored */
	served = prefix(a, 2000, 60);
	CHECK(served >= 25 && served < 60, "%u of 60 blocks are served, in room for 30", served);
	CHECK(prefix(b, 1000, 20) == 20, "b lost something");
	speckv_pool_close(b);
	end_pool(dev, a);
}

/*
 * Cold blocks go and hot ones stay, while the time of day is set back, set forward, or begins in
 * 1970.
 */
static void no_clock_that_is_set_turns_the_order(struct speckv_device *dev, int64_t shift,
	bool from_1970, bool to_1970)
{
	struct speckv_pool *pool;
	unsigned int lost = 0, cold = 0, last;

	clock_1970 = from_1970;
	pool = new_pool(dev, 4 * MIB, "raw");
	for (unsigned int i = 0; i < FITS / 2; i++)
		put_number(pool, i, buffer);
	clock_shift = shift;
	clock_1970 = to_1970;
	for (unsigned int h = 0; h < 20; h++)
		put_number(pool, 10000 + h, buffer);
	for (last = 0; last < 2 * FITS; last++) {
		EXPECT(0, put_number(pool, 20000 + last, buffer));
		for (unsigned int h = 0; h < 20; h++)
			if (get_number(pool, 10000 + h, buffer) != 0) {
				lost++;
				put_number(pool, 10000 + h, buffer);
			}
	}
	for (unsigned int i = 0; i < FITS / 2; i++)
		cold += there(pool, i);
	clock_shift = 0;
	clock_1970 = false;
	CHECK(lost == 0 && cold <= 3,
		"shift %lld: %u blocks in use were evicted, %u unused ones stayed",
		(long long)shift, lost, cold);
	end_pool(dev, pool);
}

int main(void)
{
	struct speckv_device *dev;

	test_begin(100);
	buffer = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	for (unsigned int batch = 1; batch <= 256; batch *= 16) {
		a_chain_longer_than_its_pool_keeps_its_beginning(dev, "raw", 180, batch, FITS - 3);
		a_chain_longer_than_its_pool_keeps_its_beginning(dev, "raw", 3 * FITS, batch,
			FITS - 3);
		a_chain_longer_than_its_pool_keeps_its_beginning(dev, "int8-delta-rle", 1000, batch,
			3 * FITS);
	}
	sessions_keep_their_beginnings(dev);
	the_session_in_use_stays(dev);
	what_no_prefix_reaches_goes_first(dev);
	what_lies_beside_an_unreachable_block_counts_as_used(dev);
	a_tenants_quota_takes_ends_first(dev);
	no_clock_that_is_set_turns_the_order(dev, 0, false, false);
	no_clock_that_is_set_turns_the_order(dev, -3600ll * 1000000000, false, false);
	no_clock_that_is_set_turns_the_order(dev, 3600ll * 1000000000, false, false);
	no_clock_that_is_set_turns_the_order(dev, 0, true, false);
	no_clock_that_is_set_turns_the_order(dev, 0, false, true);
	free(buffer);
	speckv_device_close(dev);
	test_end();
	return 0;
}
