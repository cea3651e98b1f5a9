// SPDX-License-Identifier: MIT
/*
 * What administrators see and do: settings, statistics, tenants, clients, events, a pool in use, a
 * pool that is destroyed.
 */
#include "client/store/layout.h"

#include "harness.h"

static char device_name[300];
static uint8_t *buffer;

static int sitter(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(device_name, 0), "pool", "sitter");
	struct speckv_mem *mem;

	EXPECT(0, speckv_mem_alloc(pool, 50000, &mem));
	CHECK(write(*(const int *)arg, "x", 1) == 1, "ready");
	for (;;)
		pause();
	return 0;
}

struct seen {
	uint32_t pid;
	unsigned int count, alive;
	uint64_t allocated;
};

static int see_client(const struct speckv_client_info *info, void *arg)
{
	struct seen *seen = arg;

	seen->count++;
	if (info->pid == seen->pid) {
		CHECK(strstr(info->command, "admin") && info->attached_ns && info->uid == geteuid(),
			"%s", info->command);
		seen->alive = info->alive;
		seen->allocated = info->allocated_bytes;
	}
	return 0;
}

static void a_pool_in_use_is_not_destroyed(struct speckv_device *dev)
{
	struct seen seen = { 0 };
	char who[64], byte;
	int pipes[2];

	CHECK(pipe2(pipes, O_CLOEXEC) == 0, "pipe");
	seen.pid = (uint32_t)spawn(sitter, &pipes[1]);
	CHECK(read(pipes[0], &byte, 1) == 1, "ready");
	snprintf(who, sizeof(who), "in use by pid %u (", seen.pid);
	REFUSED(-EBUSY, who, speckv_pool_destroy(dev, "pool", NULL, NULL));
	EXPECT(-EBUSY, speckv_device_remove(test_ctx, device_name, SPECKV_REMOVE_POOLS));
	EXPECT(0, speckv_pool_clients(dev, "pool", see_client, &seen));
	CHECK(seen.count == 1 && seen.alive == 1 && seen.allocated >= 50000, "%u %u %llu",
		seen.count, seen.alive, (unsigned long long)seen.allocated);
	kill((pid_t)seen.pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child((pid_t)seen.pid));
	seen.count = 0;
	EXPECT(0, speckv_pool_clients(dev, "pool", see_client, &seen));
	CHECK(seen.count == 1 && seen.alive == 0, "dead, and still listed");
	close(pipes[0]);
	close(pipes[1]);
}

static void settings(struct speckv_device *dev, enum media kind)
{
	struct speckv_pool_config set = { .quota_bytes = 3 * MIB,
		.tenant_quota_bytes = 2 * MIB,
		.eviction = SPECKV_EVICT_NONE,
		.mode = 0640 };
	struct speckv_pool_info info;
	unsigned int mask = SPECKV_SET_QUOTA | SPECKV_SET_TENANT_QUOTA | SPECKV_SET_EVICTION;
	struct stat st;

	EXPECT(0, speckv_pool_set(dev, "pool", mask, &set, &info));
	CHECK(info.config.quota_bytes == 3 * MIB && info.config.tenant_quota_bytes == 2 * MIB &&
			info.config.eviction == SPECKV_EVICT_NONE,
		"set");
	REFUSED(-EALREADY, "has these settings already",
		speckv_pool_set(dev, "pool", mask, &set, &info));
	if (kind == MEDIUM_FIXED) {
		REFUSED(-EOPNOTSUPP, "one inode",
			speckv_pool_set(dev, "pool", SPECKV_SET_MODE, &set, &info));
	} else {
		EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_MODE, &set, &info));
		CHECK(info.config.mode == 0640 && stat(info.path, &st) == 0 &&
				(st.st_mode & 0777) == 0640,
			"mode");
		set.mode = 0077;
		REFUSED(-EINVAL, "mode 0077",
			speckv_pool_set(dev, "pool", SPECKV_SET_MODE, &set, &info));
	}
	set.quota_bytes = 1;
	REFUSED(-EINVAL, "below one block",
		speckv_pool_set(dev, "pool", SPECKV_SET_QUOTA, &set, NULL));
	set.quota_bytes = 1ull << 40;
	REFUSED(-EINVAL, "above the largest size",
		speckv_pool_set(dev, "pool", SPECKV_SET_QUOTA, &set, NULL));
	set.eviction = 9;
	REFUSED(-EINVAL, "does not exist",
		speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &set, NULL));
	REFUSED(-ENOENT, "no pool", speckv_pool_set(dev, "none", SPECKV_SET_EVICTION, &set, NULL));
	set = (struct speckv_pool_config){ 0 };
	EXPECT(0, speckv_pool_set(dev, "pool", mask, &set, &info));
	CHECK(info.config.quota_bytes == info.config.capacity_bytes &&
			!info.config.tenant_quota_bytes,
		"back to the defaults");
}

static uint64_t samples(const struct speckv_stats *stats, unsigned int histogram)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
		n += stats->histograms[histogram][i];
	return n;
}

static int see_tenant(const struct speckv_tenant_info *info, void *arg)
{
	struct speckv_tenant_info *out = arg;

	if (strcmp(info->name, "counted") == 0)
		*out = *info;
	return 0;
}

static void statistics(struct speckv_device *dev)
{
	struct speckv_pool *pool = attach_pool(dev, "pool", "counted");
	struct speckv_tenant_info tenant = { 0 };
	struct speckv_stats s;
	struct speckv_key keys[30];
	uint8_t present[30];
	struct speckv_mem *mem;

	EXPECT(-ENOENT, speckv_pool_stats_reset_check(dev, "none"));
	EXPECT(0, speckv_pool_stats_reset_check(dev, "pool"));
	EXPECT(0, speckv_pool_stats_reset(dev, "pool"));
	EXPECT(0, speckv_pool_stats(dev, "pool", &s));
	for (unsigned int i = 0; i < SPECKV_COUNTERS; i++)
		CHECK(s.counters[i] == 0, "counter %u", i);
	CHECK(s.since_ns && s.taken_ns >= s.since_ns && samples(&s, SPECKV_HIST_PUT) == 0, "reset");
	for (uint64_t i = 0; i < 30; i++) {
		keys[i] = key_of(i);
		if (i < 20)
			EXPECT(0, put_number(pool, i, buffer));
	}
	EXPECT(0, put_number(pool, 0, buffer));
	EXPECT(-EINVAL, put_block(pool, &keys[29], buffer, 1));
	for (uint64_t i = 0; i < 25; i++)
		EXPECT(i < 20 ? 0 : -ENOENT, get_number(pool, i, buffer));
	EXPECT(20, speckv_lookup(pool, keys, 30, present));
	EXPECT(7, speckv_touch(pool, keys, 7));
	EXPECT(2, speckv_drop(pool, keys + 18, 5));
	EXPECT(0, speckv_mem_alloc(pool, 1, &mem));
	speckv_mem_free(mem);
	EXPECT(0, speckv_pool_stats(dev, "pool", &s));
#define COUNTED(name, want)                                                \
	CHECK(s.counters[SPECKV_COUNT_##name] == (want), #name " is %llu", \
		(unsigned long long)s.counters[SPECKV_COUNT_##name])
	COUNTED(PUTS, 20);
	COUNTED(PUT_EXISTED, 1);
	COUNTED(PUT_FAILED, 1);
	COUNTED(GETS, 25);
	COUNTED(HITS, 20);
	COUNTED(MISSES, 5);
	COUNTED(BAD, 0);
	COUNTED(LOOKUPS, 30);
	COUNTED(LOOKUP_HITS, 20);
	COUNTED(TOUCHES, 7);
	COUNTED(DROPS, 2);
	COUNTED(ALLOCATIONS, 1);
	COUNTED(BYTES_IN_RAW, 20 * SMALL_BYTES);
	COUNTED(BYTES_OUT_RAW, 20 * SMALL_BYTES);
	CHECK(s.counters[SPECKV_COUNT_BYTES_IN_STORED] >= 20 * SMALL_BYTES, "stored");
	CHECK(samples(&s, SPECKV_HIST_PUT) == 20 && samples(&s, SPECKV_HIST_GET) == 20 &&
			samples(&s, SPECKV_HIST_LOOKUP) == 1,
		"samples");
	CHECK(speckv_histogram_quantile(s.histograms[SPECKV_HIST_PUT], 0.5) <=
			speckv_histogram_quantile(s.histograms[SPECKV_HIST_PUT], 0.99),
		"order");
	EXPECT(0, speckv_pool_tenants(dev, "pool", see_tenant, &tenant));
	CHECK(tenant.clients == 1 && tenant.blocks == 18 && tenant.puts == 20 &&
			tenant.gets == 25 && tenant.hits == 20 && tenant.misses == 5 &&
			tenant.bytes_in == 20 * SMALL_BYTES &&
			tenant.bytes_out == 20 * SMALL_BYTES &&
			tenant.used_bytes >= 18 * SMALL_BYTES,
		"tenant");
	EXPECT(18, speckv_drop(pool, keys, 18));
	speckv_pool_close(pool);
}

static void histogram_bounds(void)
{
	uint64_t buckets[SPECKV_HIST_BUCKETS] = { 0 };

	for (unsigned int i = 1; i < SPECKV_HIST_BUCKETS; i++)
		CHECK(speckv_histogram_bound(i) > speckv_histogram_bound(i - 1), "bucket %u", i);
	CHECK(speckv_histogram_quantile(buckets, 0.5) == 0, "empty");
	buckets[10] = 98;
	buckets[40] = 2;
	CHECK(speckv_histogram_quantile(buckets, 0) == speckv_histogram_bound(10) &&
			speckv_histogram_quantile(buckets, 0.97) == speckv_histogram_bound(10) &&
			speckv_histogram_quantile(buckets, 0.985) == speckv_histogram_bound(40) &&
			speckv_histogram_quantile(buckets, 1) == speckv_histogram_bound(40),
		"quantiles");
}

struct log {
	uint64_t last;
	unsigned int n, attached, created;
	bool pool;
};

static int see_event(const struct speckv_event *event, void *arg)
{
	struct log *log = arg;

	CHECK(event->sequence > log->last, "order");
	CHECK(log->pool ? strcmp(event->pool, "pool") == 0 : !*event->pool, "%s", event->pool);
	CHECK(event->time_ns && event->pid && *event->text && speckv_event_kind_name(event->kind),
		"whole");
	if (event->kind == SPECKV_EVENT_CLIENT_ATTACHED ||
		event->kind == SPECKV_EVENT_CLIENT_DETACHED) {
		/* the pid first, the program's name, no more */
		char begins[64];

		snprintf(begins, sizeof(begins), "pid %u (client_admin) %s, tenant ", event->pid,
			event->kind == SPECKV_EVENT_CLIENT_ATTACHED ? "attached" : "detached");
		CHECK(strncmp(event->text, begins, strlen(begins)) == 0, "%s", event->text);
	}
	if (event->kind == SPECKV_EVENT_POOL_SET)
		CHECK(strstr(event->text, "settings changed: ") == event->text &&
				strlen(event->text) > 20,
			"%s", event->text);
	log->last = event->sequence;
	log->n++;
	log->attached += event->kind == SPECKV_EVENT_CLIENT_ATTACHED &&
		strstr(event->text, "visitor");
	log->created += event->kind == SPECKV_EVENT_POOL_CREATED &&
		strstr(event->text, "pool pool created");
	return 0;
}

static int stop_at_first(const struct speckv_event *event, void *arg)
{
	return 42;
}

static void event_logs(struct speckv_device *dev)
{
	struct log log = { .pool = true }, table = { 0 };
	uint64_t last;

	EXPECT(0, speckv_events(dev, "pool", 0, see_event, &log));
	last = log.last;
	speckv_pool_close(attach_pool(dev, "pool", "visitor"));
	log.n = log.attached = 0;
	EXPECT(0, speckv_events(dev, "pool", last, see_event, &log));
	CHECK(log.n == 2 && log.attached == 1, "attached and detached: %u", log.n);
	for (int i = 0; i < 600; i++) /* the ring goes round */
		speckv_pool_close(attach_pool(dev, "pool", "visitor"));
	log = (struct log){ .pool = true };
	EXPECT(0, speckv_events(dev, "pool", 0, see_event, &log));
	CHECK(log.n >= LAY_POOL_EVENTS - 1 && log.n <= LAY_POOL_EVENTS && log.last > 1000,
		"%u, the last %llu", log.n, (unsigned long long)log.last);
	EXPECT(0, speckv_events(dev, NULL, 0, see_event, &table));
	CHECK(table.created == 1, "the device's own log");
	EXPECT(42, speckv_events(dev, "pool", 0, stop_at_first, NULL));
	EXPECT(-ENOENT, speckv_events(dev, "none", 0, see_event, &table));
	CHECK(speckv_event_kind_name(SPECKV_EVENT_RECOVERED) && !speckv_event_kind_name(0) &&
			!speckv_event_kind_name(99),
		"names");
}

/* What only reads leaves no trace: no slot, no counter, no last use; and it cannot write. */
static void a_reader_writes_nothing(struct speckv_device *dev)
{
	struct speckv_attach reader = { .flags = SPECKV_ATTACH_READ_ONLY };
	struct speckv_pool *pool, *other, *writer = attach_pool(dev, "pool", "writer");
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	struct speckv_stats before, after;
	struct speckv_pool_info info;
	struct speckv_key key = key_of(1);
	struct speckv_op *op;
	uint8_t present;

	for (uint64_t i = 0; i < 20; i++)
		EXPECT(0, put_number(writer, i, buffer));
	speckv_pool_close(writer);
	EXPECT(0, speckv_pool_stats(dev, "pool", &before));
	EXPECT(0, speckv_pool_open(dev, "pool", &reader, &pool));
	for (uint64_t i = 0; i < 22; i++)
		EXPECT(i < 20 ? 0 : -ENOENT, get_number(pool, i, buffer));
	EXPECT(1, speckv_lookup(pool, &key, 1, &present));
	EXPECT(1, speckv_lookup_prefix(pool, &key, 1));
	EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, &request, 1, &op));
	EXPECT(1, speckv_op_wait(op, -1));
	speckv_op_release(op);
	REFUSED(-EROFS, "read-only", speckv_put(pool, &request, 1));
	reader.flags = 1u << 30;
	REFUSED(-EINVAL, "unknown attach flags", speckv_pool_open(dev, "pool", &reader, &other));
	EXPECT(-EROFS, speckv_touch(pool, &key, 1));
	EXPECT(-EROFS, speckv_drop(pool, &key, 1));
	EXPECT(-EROFS, speckv_prefetch(pool, &key, 1));
	EXPECT(-EROFS, speckv_submit(pool, SPECKV_OP_DROP, &request, 1, &op));
	EXPECT(0, speckv_pool_stats(dev, "pool", &after));
	CHECK(memcmp(before.counters, after.counters, sizeof(before.counters)) == 0,
		"no counter moved");
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.clients == 0, "no slot");
	speckv_pool_close(pool);
}

static int see_step(const struct speckv_selftest_step *step, void *arg)
{
	CHECK(step->result == 0 && *step->name && *step->detail, "%s: %s", step->name,
		step->detail);
	++*(unsigned int *)arg;
	return 0;
}

static void selftest_passes(struct speckv_device *dev)
{
	unsigned int steps = 0;

	EXPECT(0, speckv_device_selftest(dev, see_step, &steps));
	CHECK(steps >= 4, "%u", steps);
}

static bool file_holds(const char *path, const void *bytes, size_t length)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *map;
	bool found;

	CHECK(fd >= 0 && fstat(fd, &st) == 0, "%s", path);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	CHECK(map != MAP_FAILED, "mmap");
	found = memmem(map, (size_t)st.st_size, bytes, length) != NULL;
	munmap(map, (size_t)st.st_size);
	return found;
}

static int count_progress(uint64_t done, uint64_t total, void *arg)
{
	CHECK(done <= total, "progress");
	++*(unsigned int *)arg;
	return 0;
}

/*
 * Nothing of a destroyed pool can be read from its medium, not even through a link that somebody
 * kept.
 */
static void destroy_zeroes(struct speckv_device *dev)
{
	struct speckv_key key = key_of(5);
	struct speckv_pool_info info;
	unsigned int calls = 0;
	char kept[400];

	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	snprintf(kept, sizeof(kept), "%s/kept", test_dir);
	CHECK(link(info.path, kept) == 0, "link");
	fill_block(&key, buffer, SMALL_BYTES);
	/* a card's bytes are elsewhere */
	CHECK(test_on_card() || file_holds(kept, buffer, 4096), "it is there before");
	EXPECT(0, speckv_pool_destroy(dev, "pool", count_progress, &calls));
	CHECK(!file_holds(kept, buffer, 64) && calls > 0, "and not after");
	CHECK(unlink(kept) == 0, "unlink");
	REFUSED(-ENOENT, "no pool 'pool'", speckv_pool_destroy(dev, "pool", NULL, NULL));
}

struct names {
	unsigned int n;
	char name[4][SPECKV_NAME_BYTES];
};

static int see_pool(const struct speckv_pool_info *info, void *arg)
{
	struct names *names = arg;

	CHECK(names->n < 4, "too many");
	memcpy(names->name[names->n++], info->config.name, SPECKV_NAME_BYTES);
	return 0;
}

static void pools_are_listed(struct speckv_device *dev)
{
	struct names names = { 0 };
	struct speckv_device_info info;
	struct speckv_pool_config config = small_pool("alpha", 2 * MIB);

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_foreach(dev, see_pool, &names));
	CHECK(names.n == 2 && !strcmp(names.name[0], "alpha") && !strcmp(names.name[1], "pool"),
		"by name");
	EXPECT(0, speckv_device_info(dev, &info));
	CHECK(info.pools == 2 && info.allocated_bytes >= 10 * MIB && info.free_bytes > 0 &&
			info.codec_modes == speckv_codec_modes(),
		"device");
	EXPECT(0, speckv_pool_destroy(dev, "alpha", NULL, NULL));
}

/* Before there is a device to open, and the same that a pool gets that is made. */
static void plans_make_nothing(const char *device)
{
	struct speckv_pool_config config = small_pool("planned", 8 * MIB), planned, wrong = config;
	struct speckv_device_info before, after;

	EXPECT(0, speckv_device_probe(test_ctx, device, &before));
	EXPECT(0, speckv_pool_plan(test_ctx, device, &config, &planned));
	CHECK(planned.capacity_bytes >= config.capacity_bytes &&
			planned.max_bytes >= planned.capacity_bytes && planned.page_bytes &&
			planned.mode == 0600 && planned.uid == geteuid() &&
			planned.quota_bytes == planned.capacity_bytes,
		"defaults");
	strcpy(wrong.name, "a/b");
	REFUSED(-EINVAL, "a/b", speckv_pool_plan(test_ctx, device, &wrong, &planned));
	wrong = config;
	wrong.mode = 0077;
	REFUSED(-EINVAL, "mode 0077", speckv_pool_plan(test_ctx, device, &wrong, &planned));
	EXPECT(-EOPNOTSUPP, speckv_pool_plan(test_ctx, "nothing:here", &config, &planned));
	EXPECT(0, speckv_device_probe(test_ctx, device, &after));
	CHECK(before.state == after.state, "%u was %u", after.state, before.state);
}

int main(void)
{
	test_begin(90);
	buffer = line_alloc(2 * SMALL_BYTES);
	CHECK(strcmp(speckv_ctx_runtime_dir(test_ctx), test_dir) == 0 && *speckv_version(),
		"context");
	histogram_bounds();
	plans_make_nothing(MEMORY);
	for (int kind = 0; kind < test_media(); kind++) {
		struct speckv_device *dev = open_medium((enum media)kind, device_name);
		struct speckv_pool_config config = small_pool("pool", 8 * MIB);

		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		plans_make_nothing(device_name);
		pools_are_listed(dev);
		settings(dev, (enum media)kind);
		statistics(dev);
		event_logs(dev);
		a_reader_writes_nothing(dev);
		a_pool_in_use_is_not_destroyed(dev);
		selftest_passes(dev);
		destroy_zeroes(dev);
		speckv_device_close(dev);
		remove_device(device_name);
	}
	free(buffer);
	test_end();
	return 0;
}
