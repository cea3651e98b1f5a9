// SPDX-License-Identifier: MIT
/*
 * Another process that may write the medium scribbles over its tables and data while this one uses
 * it: calls fail or miss, but none crashes, hangs, or yields wrong bytes. hostile ROUNDS [SEED]
 */
#include "client/admin/admin.h"

#include "harness.h"

#define KEYS 60
#define STEPS 160

struct target {
	uint8_t *at;
	uint64_t bytes;
};

static char device_name[300];
static uint64_t seed;
static unsigned int round_number;
static enum media medium;
static uint64_t hits, misses, refused;

static uint8_t *map_file(const char *path, uint64_t *bytes)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;
	uint8_t *at;

	CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s", path);
	at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED, "mmap");
	close(fd);
	*bytes = (uint64_t)st.st_size;
	return at;
}

/*
 * What lies in a medium, part by part, so that the small parts are hit as often as the large ones.
 */
static unsigned int targets(struct target list[24])
{
	char path[700], base[400];
	uint64_t bytes;
	uint8_t *table, *region;
	struct lay_device *dev;
	struct lay_pool_head *head;
	struct lay_pool fixed;
	unsigned int n = 0;

	snprintf(base, sizeof(base), "%s%s", medium == MEDIUM_DRAM ? test_dir : device_name + 5,
		medium == MEDIUM_DRAM ? "/DRAM" : "");
	table = map_file(base, &bytes);
	dev = (struct lay_device *)table;
	if (medium == MEDIUM_FIXED) {
		region = table + dev->pools[0].extent[0].offset;
	} else {
		snprintf(path, sizeof(path), "%s.pools/victim", base);
		region = map_file(path, &bytes);
	}
	head = (struct lay_pool_head *)region;
	memcpy((void *)&fixed, (const void *)head, sizeof(fixed));
#define TARGET(pointer, size) list[n++] = (struct target){ (uint8_t *)(pointer), (size) }
	TARGET(&dev->super, sizeof(dev->super));
	TARGET(&dev->super.manager_pid, 96);
	TARGET(&dev->pools[0], sizeof(dev->pools[0]));
	TARGET(dev->pools, sizeof(dev->pools));
	TARGET(dev->events, sizeof(dev->events));
	TARGET(&head->pool, offsetof(struct lay_pool, data_pages));
	TARGET(&head->pool.data_pages,
		offsetof(struct lay_pool, next_run_generation) -
			offsetof(struct lay_pool, data_pages));
	TARGET(&head->pool.next_run_generation, 64);
	TARGET(head->clients, sizeof(head->clients));
	TARGET(head->tenants, sizeof(head->tenants));
	TARGET(&head->stats, sizeof(head->stats));
	TARGET(head->events, sizeof(head->events));
	TARGET(head->hints, sizeof(head->hints));
	TARGET(region + fixed.directory_offset,
		(fixed.bucket_mask + 1) * sizeof(struct lay_bucket));
	TARGET(region + fixed.page_map_offset, fixed.data_pages * 8);
	TARGET(region + fixed.page_map_offset, fixed.max_pages * 8);
	TARGET(region + fixed.entry_offset,
		fixed.data_pages / fixed.min_run * sizeof(struct lay_entry));
	TARGET(region + fixed.data_offset, fixed.data_pages * fixed.page_bytes);
	return n;
}

static uint64_t bad_word(uint64_t old, uint64_t *random, const struct target *t)
{
	uint64_t other;

	switch (below(random, 9)) {
	case 0:
		return chance(random);
	case 1:
		return old ^ 1ull << below(random, 64);
	case 2:
		return ~0ull;
	case 3:
		return 0;
	case 4:
		return old + (below(random, 2) ? 1 : -1ull);
	case 5:
		return chance(random) >> below(random, 64);
	case 6:
		return 1ull << below(random, 64);
	case 7: /* a word that belongs, elsewhere */
		memcpy(&other, t->at + below(random, t->bytes / 8) * 8, 8);
		return other;
	default: /* both halves wrong in their own way */
		return (chance(random) >> (32 + below(random, 32))) << 32 |
			(uint32_t)(old ^ 1u << below(random, 32));
	}
}

static int vandal(void *arg)
{
	uint64_t random = seed * 31 + round_number;
	struct target list[24];
	unsigned int n = targets(list),
		     only = below(&random, 2) ? (unsigned int)below(&random, n) : n;

	for (;;) {
		struct target *t = &list[only < n ? only : below(&random, n)];
		uint64_t burst = 1 + below(&random, 40), word;

		while (burst--) {
			uint8_t *at = t->at + below(&random, t->bytes / 8) * 8;

			memcpy(&word, at, 8);
			word = bad_word(word, &random, t);
			memcpy(at, &word, 8);
		}
		sleep_us((long)below(&random, 300));
	}
	return 0;
}

static int any_event(const struct speckv_event *event, void *arg)
{
	CHECK(memchr(event->text, 0, sizeof(event->text)) &&
			memchr(event->pool, 0, sizeof(event->pool)),
		"a text without an end");
	return 0;
}

static int any_tenant(const struct speckv_tenant_info *info, void *arg)
{
	CHECK(memchr(info->name, 0, sizeof(info->name)), "a name without an end");
	return 0;
}

static int any_client(const struct speckv_client_info *info, void *arg)
{
	CHECK(memchr(info->command, 0, sizeof(info->command)), "a command without an end");
	return 0;
}

static int any_pool(const struct speckv_pool_info *info, void *arg)
{
	CHECK(memchr(info->config.name, 0, sizeof(info->config.name)), "a name without an end");
	return 0;
}

static void administer(struct speckv_device *dev, uint64_t *random, uint8_t *buffer)
{
	struct speckv_check_report report;
	struct speckv_device_info device_info;
	struct speckv_pool_info info;
	struct speckv_stats stats;
	struct speckv_pool *pool;
	struct speckv_pool_config config = small_pool("other", 2 * MIB);
	int rc = 0;

	switch (below(random, 12)) {
	case 0:
		rc = speckv_pool_check(dev, "victim", (unsigned int)below(random, 4), NULL, NULL,
			&report);
		break;
	case 1:
		rc = speckv_pool_info(dev, "victim", &info);
		break;
	case 2:
		rc = speckv_pool_stats(dev, "victim", &stats);
		break;
	case 3:
		if (below(random, 4) == 0)
			rc = speckv_pool_resize(dev, "victim", 2 * MIB * (1 + below(random, 4)),
				(unsigned int)below(random, 4), NULL, NULL, NULL);
		break;
	case 4:
		rc = speckv_pool_open(dev, "victim", NULL, &pool);
		if (!rc) {
			for (uint64_t i = 0; i < 10 && speckv_pool_block_bytes(pool) == SMALL_BYTES;
				i++)
				get_number(pool, i, buffer);
			speckv_pool_close(pool);
		}
		break;
	case 5:
		rc = speckv_pool_tenants(dev, "victim", any_tenant, NULL);
		break;
	case 6:
		rc = speckv_pool_clients(dev, "victim", any_client, NULL);
		break;
	case 7:
		rc = speckv_events(dev, below(random, 2) ? "victim" : NULL,
			chance(random) >> below(random, 64), any_event, NULL);
		break;
	case 8:
		rc = speckv_device_info(dev, &device_info);
		break;
	case 9:
		rc = speckv_pool_foreach(dev, any_pool, NULL);
		break;
	case 10:
		rc = speckv_pool_create(dev, &config, NULL);
		speckv_pool_destroy(dev, "other", NULL, NULL);
		break;
	default: {
		struct speckv_device *again;

		rc = speckv_device_open(test_ctx, device_name, 0, &again);
		if (!rc)
			speckv_device_close(again);
	}
	}
	CHECK(rc <= 0, "%d", rc);
	refused += rc < 0;
}

static void use(struct speckv_pool *pool, uint64_t *random, uint8_t *buffer)
{
	uint64_t n = below(random, KEYS);
	struct speckv_key key = key_of(n), keys[8];
	struct speckv_mem *mem;
	struct speckv_op *op;
	void *pointer;
	int rc;

	switch (below(random, 10)) {
	case 0:
	case 1:
		rc = put_number(pool, n, buffer);
		break;
	case 2:
		rc = speckv_drop(pool, &key, 1);
		break;
	case 3:
		rc = speckv_mem_alloc(pool, 1 + below(random, 5 * SMALL_BYTES), &mem);
		if (rc == 0) {
			EXPECT(0, speckv_mem_access(mem, 0, speckv_mem_bytes(mem), &pointer));
			memset(pointer, 1, speckv_mem_bytes(mem));
			speckv_mem_free(mem);
		}
		break;
	case 4:
		rc = speckv_children(pool, &key, keys, 8);
		CHECK(rc <= 8, "%d", rc);
		break;
	case 5: {
		struct speckv_request request = { .key = key,
			.parent = key_of(below(random, KEYS)),
			.flags = SPECKV_REQUEST_HAS_PARENT,
			.buffer = buffer,
			.buffer_bytes = SMALL_BYTES };

		fill_block(&key, buffer, SMALL_BYTES);
		rc = speckv_put(pool, &request, 1);
		break;
	}
	case 6:
		rc = speckv_prefetch(pool, &key, 1);
		break;
	case 7: {
		struct speckv_request request = { .key = key };

		EXPECT(0, speckv_submit(pool, SPECKV_OP_PREFETCH, &request, 1, &op));
		rc = speckv_op_wait(op, -1);
		speckv_op_release(op);
		break;
	}
	default:
		/* a hit has the right bytes, or the test ends there */
		rc = get_number(pool, n, buffer);
		hits += rc == 0;
		misses += rc != 0;
	}
	(void)rc;
}

static void one_round(uint8_t *buffer)
{
	uint64_t random = seed + round_number * 7919ull;
	struct speckv_pool_config config = small_pool("victim", 4 * MIB);
	struct speckv_device *dev;
	struct speckv_pool *pool;
	pid_t pid;

	medium = (enum media)(round_number % MEDIA);
	dev = open_medium(medium, device_name);
	config.max_bytes = 8 * MIB;
	config.eviction = (uint32_t)below(&random, 2);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "victim", "user");
	EXPECT(0, speckv_param_set(pool, "prefetch_depth", "4"));
	for (uint64_t i = 0; i < KEYS; i++)
		EXPECT(0, put_number(pool, i, buffer));
	pid = spawn(vandal, NULL);
	for (unsigned int i = 0; i < STEPS; i++)
		if (below(&random, 4))
			use(pool, &random, buffer);
		else
			administer(dev, &random, buffer);
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	speckv_pool_close(pool);
	speckv_device_close(dev);
	empty_test_dir();
}

int main(int argc, char **argv)
{
	unsigned int rounds = argc > 1 ? (unsigned int)atoi(argv[1]) : 60;
	uint8_t *buffer;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : now_nanoseconds();
	fprintf(stderr, "seed %#llx\n", (unsigned long long)seed);
	test_begin(60 + rounds * 2);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (round_number = 0; round_number < rounds; round_number++)
		one_round(buffer);
	fprintf(stderr, "%u rounds: %llu hits, all right, %llu misses, %llu calls refused\n",
		rounds, (unsigned long long)hits, (unsigned long long)misses,
		(unsigned long long)refused);
	CHECK(hits && misses && refused, "it hurt, and something still worked");
	free(buffer);
	test_end();
	return 0;
}
