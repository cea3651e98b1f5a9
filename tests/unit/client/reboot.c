// SPDX-License-Identifier: MIT
/*
 * After another boot the index is made anew from page map and frames: every sound block is there,
 * nothing else is.
 */
#include "client/admin/admin.h"

#include "harness.h"

#define N 80

static uint8_t *buffer;

/*
 * What the machine went down with: claims of clients that are gone, a stale index, and blocks whose
 * bytes never arrived.
 */
static int went_down(void *arg)
{
	struct speckv_device *dev = open_device(arg, 0);
	struct speckv_pool *pool = attach_pool(dev, "pool", "before");
	struct region *r = &pool->region;
	struct speckv_mem *mem;
	struct block_ref found;
	struct speckv_key key;
	struct speckv_frame_identity identity = { 0 };
	struct run to;

	for (uint64_t i = 0; i < N; i++)
		EXPECT(0, put_number(pool, i, buffer));
	EXPECT(1, speckv_drop(pool, &(struct speckv_key[]){ key_of(7) }[0], 1));
	EXPECT(0, speckv_mem_alloc(pool, 100000, &mem));
	key = key_of(20); /* its payload's header page was not written */
	CHECK(index_find(r, &key, &found), "20");
	memset(r->data + found.page * r->page_bytes, 0, 64);
	key = key_of(21); /* its run was not written whole */
	CHECK(index_find(r, &key, &found), "21");
	store_release(&r->page_map[found.page + 1], 0);
	key = key_of(22); /* moved half: the deciding word was written, the other not */
	CHECK(index_find(r, &key, &found), "22");
	EXPECT(0, pages_claim(pool, found.pages, &to, 0));
	memcpy(r->data + to.page * r->page_bytes, r->data + found.page * r->page_bytes,
		(size_t)found.pages * r->page_bytes);
	memcpy(identity.key, key.bytes, sizeof(identity.key));
	memcpy(identity.pool_uuid, r->fixed.uuid, sizeof(identity.pool_uuid));
	identity.generation = to.generation;
	identity.pool_address = to.page * r->page_bytes;
	EXPECT(0,
		speckv_frame_readdress(r->data + to.page * r->page_bytes,
			(uint64_t)to.pages * r->page_bytes, &identity));
	move_begin(pool, &found, &to);
	CHECK(pages_unpublish(pool, &(struct run){ found.page, found.generation, found.pages }),
		"22");
	store_release(&r->head->pool.next_run_generation, 5); /* an old value came back */
	memset((void *)r->directory, 0x11,
		(r->fixed.bucket_mask + 1) * sizeof(struct lay_bucket) / 2);
	r->head->pool.boot_id[0] ^= 1;
	raise(SIGKILL);
	return 0;
}

static int attach_after(void *arg)
{
	struct speckv_device *dev = open_device(arg, 0);
	struct speckv_pool *pool = attach_pool(dev, "pool", NULL);

	for (uint64_t i = 0; i < N; i++)
		EXPECT(i == 7 || i == 20 || i == 21 ? -ENOENT : 0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	speckv_device_close(dev);
	return 0;
}

static int recovered(const struct speckv_event *event, void *arg)
{
	*(unsigned int *)arg += event->kind == SPECKV_EVENT_RECOVERED &&
		strstr(event->text, "77 blocks kept") != NULL;
	return 0;
}

static void one_medium(enum media kind)
{
	char name[300];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);
	struct speckv_pool *pool;
	unsigned int events = 0;
	pid_t pids[3];

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(-SIGKILL, wait_child(spawn(went_down, name)));
	/* several attach at once; one rebuilds, the others wait for it */
	for (int i = 0; i < 3; i++)
		pids[i] = spawn(attach_after, name);
	for (int i = 0; i < 3; i++)
		EXPECT(0, wait_child(pids[i]));
	EXPECT(0, speckv_events(dev, "pool", 0, recovered, &events));
	CHECK(events == 1, "rebuilt once, and said so: %u", events);
	expect_sound(dev, "pool", N - 3);
	pool = attach_pool(dev, "pool", "after");
	for (uint64_t i = 0; i < N + 40; i++) /* generations go on above all that were used */
		EXPECT(0, put_number(pool, i, buffer));
	for (uint64_t i = 0; i < N + 40; i++)
		EXPECT(0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, "pool", N + 40);
	speckv_device_close(dev);
	remove_device(name);
}

int main(void)
{
	test_begin(60);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = 0; kind < test_media(); kind++)
		one_medium((enum media)kind);
	free(buffer);
	test_end();
	return 0;
}
