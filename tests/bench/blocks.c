// SPDX-License-Identifier: MIT
/*
 * Blocks in and out of a pool, beside memcpy and Redis: same blocks, same random order, same
 * batches, same core, in turns of one batch.
 *
 * Usage: blocks [--mib 256] [--rounds 9] [--batch 32] [--redis SOCKET --redis-pid PID] [--card
 * SPECKV-EMU] With --card the same blocks lie in an emulated card too, whose process has the other
 * cores. The pool is made on host:DRAM of SPECKV_RUNTIME_DIR, and memcpy's file lies there too, so
 * that both read one kind of memory.
 */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#ifdef HAVE_HIREDIS
#include "redis_peer.h"
#endif

#define BLOCK 65536

struct work {
	struct speckv_ctx *ctx;
	struct speckv_device *device;
	struct speckv_pool *pool;
	struct speckv_device *card;
	struct speckv_pool *card_pool;
	pid_t card_pid;
	struct redis_peer *redis;
	pid_t redis_pid;
	int core;
	size_t blocks, batch;
	uint8_t *source; /* the blocks, private memory */
	uint8_t *file; /* the same blocks in a shared file: what memcpy reads and writes */
	uint8_t *ring; /* one batch of destinations */
	uint32_t *order;
	struct speckv_request *requests;
};

static void check(const struct work *w, const char *what, int got, size_t wanted)
{
	if (got < 0 || (size_t)got != wanted)
		give_up("%s: %d of %zu: %s", what, got, wanted, speckv_strerror(w->ctx));
}

/* Fill the requests of one batch, with buffers in `source` or in `ring`. */
static void load_batch(struct work *w, size_t base, int from_source)
{
	for (size_t i = 0; i < w->batch; i++) {
		struct speckv_request *r = &w->requests[i];
		uint32_t block = w->order[base + i];

		key_of(block, &r->key);
		r->buffer = from_source ? w->source + (size_t)block * BLOCK : w->ring + i * BLOCK;
		r->buffer_bytes = BLOCK;
		r->flags = 0;
	}
}

/* ---- what is measured ----------------------------------------------------------------------- */

static void read_memory(struct work *w, size_t base)
{
	const uint64_t *p = (const uint64_t *)(const void *)w->source;
	uint64_t sum = 0;

	for (size_t i = base * BLOCK / sizeof(*p); i < (base + w->batch) * BLOCK / sizeof(*p); i++)
		sum += p[i];
	__asm__ volatile("" ::"r"(sum));
}

static void get_memcpy(struct work *w, size_t base)
{
	load_batch(w, base, 0);
	for (size_t i = 0; i < w->batch; i++)
		memcpy(w->requests[i].buffer, w->file + (size_t)w->order[base + i] * BLOCK, BLOCK);
	__asm__ volatile("" ::"r"(w->ring) : "memory");
}

static void get_speckv(struct work *w, size_t base)
{
	load_batch(w, base, 0);
	check(w, "get", speckv_get(w->pool, w->requests, w->batch), w->batch);
}

static void put_memcpy(struct work *w, size_t base)
{
	load_batch(w, base, 1);
	for (size_t i = 0; i < w->batch; i++)
		memcpy(w->file + (size_t)w->order[base + i] * BLOCK, w->requests[i].buffer, BLOCK);
	__asm__ volatile("" ::"r"(w->file) : "memory");
}

static void put_speckv(struct work *w, size_t base)
{
	load_batch(w, base, 1);
	check(w, "put", speckv_put(w->pool, w->requests, w->batch), w->batch);
}

static void get_card(struct work *w, size_t base)
{
	load_batch(w, base, 0);
	check(w, "get from the card", speckv_get(w->card_pool, w->requests, w->batch), w->batch);
}

static void put_card(struct work *w, size_t base)
{
	load_batch(w, base, 1);
	check(w, "put to the card", speckv_put(w->card_pool, w->requests, w->batch), w->batch);
}

static void drop_card(struct work *w, size_t base)
{
	for (size_t i = 0; i < w->batch; i++) {
		struct speckv_key key;

		key_of(w->order[base + i], &key);
		check(w, "drop from the card", speckv_drop(w->card_pool, &key, 1), 1);
	}
}

static void drop(struct work *w, size_t base)
{
	for (size_t i = 0; i < w->batch; i++) {
		struct speckv_key key;

		key_of(w->order[base + i], &key);
		check(w, "drop", speckv_drop(w->pool, &key, 1), 1);
	}
}

#ifdef HAVE_HIREDIS
static void get_redis(struct work *w, size_t base)
{
	load_batch(w, base, 0);
	redis_peer_get(w->redis, w->requests, w->batch);
}

static void put_redis(struct work *w, size_t base)
{
	load_batch(w, base, 1);
	redis_peer_put(w->redis, w->requests, w->batch);
}
#endif

enum place { ANYWHERE, SERVER_HERE, SERVER_ELSEWHERE, CARD };

struct peer {
	const char *name;
	void (*run)(struct work *w, size_t base); /* the batch from there on in the order */
	void (*before)(struct work *w, size_t base); /* not timed */
	enum place server;
};

static const struct peer peers[] = {
	{ "memory_read", read_memory, NULL, ANYWHERE },
	{ "memcpy_get", get_memcpy, NULL, ANYWHERE },
	{ "speckv_get", get_speckv, NULL, ANYWHERE },
	{ "memcpy_put", put_memcpy, NULL, ANYWHERE },
	{ "speckv_put", put_speckv, drop, ANYWHERE },
	{ "card_get", get_card, NULL, CARD },
	{ "card_put", put_card, drop_card, CARD },
#ifdef HAVE_HIREDIS
	{ "redis_get_one_core", get_redis, NULL, SERVER_HERE },
	{ "redis_get_two_cores", get_redis, NULL, SERVER_ELSEWHERE },
	{ "redis_put_one_core", put_redis, NULL, SERVER_HERE },
	{ "redis_put_two_cores", put_redis, NULL, SERVER_ELSEWHERE },
#endif
};

#define PEERS (sizeof(peers) / sizeof(peers[0]))

/* False when this machine has no second core. */
static int place_process(const struct work *w, pid_t process, enum place place)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int core = 0; core < sysconf(_SC_NPROCESSORS_CONF); core++)
		if ((core == w->core) == (place == SERVER_HERE))
			CPU_SET((size_t)core, &set);
	return sched_setaffinity(process, sizeof(set), &set) == 0;
}

static struct series series[PEERS];

/*
 * Peers are an equal part of the order apart, so that none finds in a cache what the one before it
 * has touched.
 */
static void turn(struct work *w, size_t p, size_t base, size_t round)
{
	double start;

	base = (base + w->blocks / w->batch * p / PEERS * w->batch) % w->blocks;
	if (peers[p].before)
		peers[p].before(w, base);
	start = now_seconds();
	peers[p].run(w, base);
	if (round)
		add_turn(&series[p], now_seconds() - start);
	series[p].name = peers[p].name;
	series[p].units = (uint64_t)w->batch * BLOCK;
}

/* ---- set up --------------------------------------------------------------------------------- */

static void make_pool(struct work *w)
{
	struct speckv_pool_config config = { .name = "bench",
		.uid = (uint32_t)-1,
		.gid = (uint32_t)-1,
		.eviction = SPECKV_EVICT_NONE };

	/* a frame is a block and at most a page of header */
	config.capacity_bytes = (w->blocks + 64) * (BLOCK + 1024ull);
	config.max_bytes = config.capacity_bytes + (4ull << 20);
	if (speckv_ctx_create(&w->ctx) ||
		speckv_device_open(w->ctx, "host:DRAM", SPECKV_OPEN_CREATE, &w->device) ||
		speckv_pool_create(w->device, &config, NULL) ||
		speckv_pool_open(w->device, "bench", NULL, &w->pool))
		give_up("the pool: %s", w->ctx ? speckv_strerror(w->ctx) : "SPECKV_RUNTIME_DIR");
	for (size_t base = 0; base < w->blocks; base += w->batch)
		put_speckv(w, base);
}

static void make_card(struct work *w, const char *program)
{
	struct speckv_pool_config config = { .name = "bench",
		.uid = (uint32_t)-1,
		.gid = (uint32_t)-1,
		.eviction = SPECKV_EVICT_NONE };
	char folder[SPECKV_PATH_BYTES + 16], bytes[32], line[16];
	int ready[2];

	snprintf(folder, sizeof(folder), "%s/emu", speckv_ctx_runtime_dir(w->ctx));
	if (mkdir(folder, 0700) || pipe(ready))
		give_up("cannot make %s", folder);
	snprintf(folder, sizeof(folder), "%s/emu/bench", speckv_ctx_runtime_dir(w->ctx));
	config.capacity_bytes = (w->blocks + 64) * (BLOCK + 1024ull);
	config.max_bytes = config.capacity_bytes + (4ull << 20);
	snprintf(bytes, sizeof(bytes), "%lluM",
		(unsigned long long)(config.capacity_bytes / 4 * 5 >> 20) + 64);
	w->card_pid = fork();
	if (w->card_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(ready[1], STDOUT_FILENO);
		execl(program, program, "--dir", folder, "--memory", bytes, (char *)NULL);
		_exit(127);
	}
	close(ready[1]);
	if (w->card_pid < 0 || read(ready[0], line, sizeof(line)) <= 0)
		give_up("cannot start %s", program);
	close(ready[0]);
	place_process(w, w->card_pid, SERVER_ELSEWHERE);
	if (speckv_device_open(w->ctx, "emu:bench", 0, &w->card) ||
		speckv_pool_create(w->card, &config, NULL) ||
		speckv_pool_open(w->card, "bench", NULL, &w->card_pool))
		give_up("the card's pool: %s", speckv_strerror(w->ctx));
	for (size_t base = 0; base < w->blocks; base += w->batch)
		put_card(w, base);
}

static void make_file(struct work *w)
{
	char path[SPECKV_PATH_BYTES + 16];
	size_t bytes = w->blocks * BLOCK;
	int fd;

	snprintf(path, sizeof(path), "%s/memcpy", speckv_ctx_runtime_dir(w->ctx));
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	/* as the pool's file is made */
	if (fd < 0 || unlink(path) || ftruncate(fd, (off_t)bytes) ||
		posix_fallocate(fd, 0, (off_t)bytes))
		give_up("cannot make %s", path);
	w->file = map_memory(fd, bytes);
	close(fd);
	memcpy(w->file, w->source, bytes);
}

static void verify(struct work *w)
{
	for (size_t base = 0; base < w->blocks; base += w->batch) {
		get_speckv(w, base);
		for (size_t i = 0; i < w->batch; i++)
			if (memcmp(w->requests[i].buffer,
				    w->source + (size_t)w->order[base + i] * BLOCK, BLOCK) != 0)
				give_up("block %u came back different", w->order[base + i]);
	}
}

int main(int argc, char **argv)
{
	struct work w = { .blocks = number(argc, argv, "--mib", 256) << 20 >> 16,
		.batch = number(argc, argv, "--batch", 32) };
	size_t rounds = number(argc, argv, "--rounds", 9);
	const char *redis = option(argc, argv, "--redis", NULL);

	if (!w.blocks || !w.batch || w.blocks % w.batch || !rounds)
		give_up("usage: blocks [--mib N] [--rounds N] [--batch N: whole batches] [--redis SOCKET --redis-pid PID]");
	w.core = stay_on_one_core();
	w.source = map_memory(-1, w.blocks * BLOCK);
	for (size_t i = 0; i < w.blocks * BLOCK / 8; i++)
		((uint64_t *)(void *)w.source)[i] = scramble(i);
	w.ring = map_memory(-1, w.batch * BLOCK);
	w.order = calloc(w.blocks, sizeof(*w.order));
	w.requests = calloc(w.batch, sizeof(*w.requests));
	if (!w.order || !w.requests)
		give_up("no memory");
	shuffle(w.order, w.blocks, 1);
	make_pool(&w);
	make_file(&w);
	if (option(argc, argv, "--card", NULL))
		make_card(&w, option(argc, argv, "--card", NULL));
#ifdef HAVE_HIREDIS
	if (redis) {
		w.redis = redis_peer_connect(redis);
		w.redis_pid = (pid_t)number(argc, argv, "--redis-pid", 0);
		for (size_t base = 0; base < w.blocks; base += w.batch)
			put_redis(&w, base);
	}
#else
	if (redis)
		give_up("built without hiredis");
#endif
	for (size_t round = 0; round <= rounds; round++) { /* the first one warms up */
		shuffle(w.order, w.blocks, round);
		for (size_t base = 0; base < w.blocks; base += w.batch)
			for (size_t p = 0; p < PEERS; p++)
				if (peers[p].server == ANYWHERE ||
					(peers[p].server == CARD && w.card_pool))
					turn(&w, p, base, round);
		/* one after the other: a server that moves has to settle */
		for (size_t p = 0; p < PEERS; p++)
			if ((peers[p].server == SERVER_HERE ||
				    peers[p].server == SERVER_ELSEWHERE) &&
				redis && place_process(&w, w.redis_pid, peers[p].server))
				for (size_t base = 0; base < w.blocks; base += w.batch)
					turn(&w, p, base, round);
	}
	verify(&w);
	for (size_t p = 0; p < PEERS; p++)
		if (series[p].name)
			print_series(&series[p]);
#ifdef HAVE_HIREDIS
	if (w.redis)
		redis_peer_close(w.redis);
#endif
	if (w.card_pool) {
		speckv_pool_close(w.card_pool);
		speckv_device_close(w.card);
		kill(w.card_pid, SIGKILL);
		waitpid(w.card_pid, NULL, 0);
	}
	speckv_pool_close(w.pool);
	if (speckv_pool_destroy(w.device, "bench", NULL, NULL))
		give_up("%s", speckv_strerror(w.ctx));
	speckv_device_close(w.device);
	if (speckv_device_remove(w.ctx, "host:DRAM", 0))
		give_up("%s", speckv_strerror(w.ctx));
	speckv_ctx_destroy(w.ctx);
	return 0;
}
