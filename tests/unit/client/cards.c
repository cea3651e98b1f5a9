// SPDX-License-Identifier: MIT
/*
 * What can happen to a card under its clients: it is killed and started again, this machine forgets
 * what it knew of it, a command never comes back, a page goes bad, a user has no right to a pool.
 * Never a wrong byte, never a hang, nothing lost.
 */
#include <pthread.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <speckv/card.h>

#include "../../vectors/calibration.h"
#include "client/admin/admin.h"
#include "transport/transport.h"

#include "harness.h"

#define BLOCKS 60

static struct speckv_device *dev;
static struct speckv_pool *pool;
static uint8_t *buffer;

static _Atomic bool strays; /* events without end, in place of the answers of a card */

int __real_queue_wait(struct queue *q, struct speckv_cqe *out, uint64_t timeout_ns);
int __wrap_queue_wait(struct queue *q, struct speckv_cqe *out, uint64_t timeout_ns);

int __wrap_queue_wait(struct queue *q, struct speckv_cqe *out, uint64_t timeout_ns)
{
	if (!load_acquire(&strays))
		return __real_queue_wait(q, out, timeout_ns);
	*out = (struct speckv_cqe){ .command_id = SPECKV_EVENT_COMMAND_ID };
	sleep_us(1000);
	return 0;
}

/* One of the emulator's own commands. */
__attribute__((format(printf, 1, 2))) static void control(const char *format, ...)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char line[128], answer[600] = "";
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
	va_list list;

	va_start(list, format);
	n = vsnprintf(line, sizeof(line), format, list);
	va_end(list);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/emu/card/control", test_dir);
	CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "control");
	CHECK(send(fd, line, (size_t)n, 0) == n && recv(fd, answer, sizeof(answer) - 1, 0) > 0,
		"control");
	CHECK(strstr(answer, "\"error\": 0"), "%s: %s", line, answer);
	close(fd);
}

static void begin(const char *name, uint32_t codec)
{
	struct speckv_pool_config config = small_pool(name, 8 * MIB);

	config.codec = codec;
	dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, name, "a");
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, put_number(pool, n, buffer));
}

static void end(const char *name)
{
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, name, NULL, NULL));
	speckv_device_close(dev);
}

static void a_card_that_is_killed_comes_back_with_its_blocks(void)
{
	struct speckv_key key = key_of(7);

	begin("killed", SPECKV_CODEC_RAW);
	for (int round = 0; round < 3; round++) {
		test_card_stop(SIGKILL);
		for (uint64_t n = 0; n < 4; n++)
			EXPECT(-ENODEV, get_number(pool, n, buffer));
		EXPECT(-ENODEV, put_number(pool, 1000, buffer));
		EXPECT(0, speckv_drop(pool, &key, 1)); /* not dropped: it would be there again */
		test_card_start();
		sleep_us(150000);
		for (uint64_t n = 0; n < BLOCKS; n++)
			EXPECT(0, get_number(pool, n, buffer));
		EXPECT(0, put_number(pool, 2000 + (uint64_t)round, buffer));
	}
	expect_sound(dev, "killed", BLOCKS + 3);
	end("killed");
}

static _Atomic int *attached; /* of the clients in other processes */

/* Blocks put and dropped while the card dies at random instants. */
static int busy(void *arg)
{
	struct speckv_pool *mine = attach_pool(open_device("emu:card", 0), "dying", arg);
	uint64_t seed = (uintptr_t)arg;

	++*attached;
	for (unsigned int i = 0; i < 4000; i++) {
		uint64_t n = 100 + below(&seed, 200);
		struct speckv_key key = key_of(n);
		int rc;

		if (below(&seed, 4) == 0) {
			rc = speckv_drop(mine, &key, 1);
			CHECK(rc >= 0, "%d", rc);
			continue;
		}
		rc = below(&seed, 2) ? put_number(mine, n, buffer) : get_number(mine, n, buffer);
		CHECK(rc == 0 || rc == -ENODEV || rc == -ENOENT, "%d", rc);
		if (rc == -ENODEV)
			sleep_us(20000);
	}
	speckv_pool_close(mine);
	return 0;
}

static void a_card_that_dies_under_traffic_gives_no_wrong_byte(void)
{
	pid_t child[2];
	uint64_t seed = now_nanoseconds();

	begin("dying", SPECKV_CODEC_RAW);
	attached = shared_memory(sizeof(*attached));
	child[0] = spawn(busy, "one");
	child[1] = spawn(busy, "two");
	while (*attached < 2) /* a card that is not there cannot be opened */
		sleep_us(1000);
	for (int i = 0; i < 8; i++) {
		sleep_us(20000 + (long)below(&seed, 60000));
		test_card_stop(SIGKILL);
		sleep_us((long)below(&seed, 20000));
		test_card_start();
	}
	EXPECT(0, wait_child(child[0]));
	EXPECT(0, wait_child(child[1]));
	sleep_us(150000);
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(pool, n, buffer));
	expect_sound(dev, "dying", -1);
	end("dying");
}

/* ---- threads of one attachment -------------------------------------------------------------- */

enum { MEMBERS = 6, TOGETHER = 24, OWN = 20, BREAKS = 10 };

static struct {
	_Atomic bool over; /* the card stays from here on */
	_Atomic uint64_t good, lost;
} crew;

/* Batches of reads that are under way together, of blocks that everybody reads. */
static void read_together(uint8_t *blocks, uint64_t *seed)
{
	struct speckv_request requests[TOGETHER];
	struct speckv_key keys[TOGETHER];
	uint8_t *want = blocks + TOGETHER * SMALL_BYTES;

	memset(requests, 0, sizeof(requests));
	for (unsigned int i = 0; i < TOGETHER; i++) {
		keys[i] = requests[i].key = key_of(below(seed, BLOCKS));
		requests[i].buffer = blocks + i * SMALL_BYTES;
		requests[i].buffer_bytes = SMALL_BYTES;
	}
	CHECK(speckv_get(pool, requests, TOGETHER) >= 0, "get");
	for (unsigned int i = 0; i < TOGETHER; i++) {
		CHECK(requests[i].status == 0 || requests[i].status == -ENODEV, "%d",
			requests[i].status);
		if (requests[i].status) {
			crew.lost++;
			continue;
		}
		fill_block(&keys[i], want, SMALL_BYTES);
		CHECK(memcmp(requests[i].buffer, want, SMALL_BYTES) == 0, "wrong bytes");
		crew.good++;
	}
}

/* A card that was told to boot does so a little later, and a try that failed counts for a while. */
static int at_last(int (*call)(struct speckv_pool *pool, uint64_t n, uint8_t *buffer), uint64_t n,
	uint8_t *blocks)
{
	int rc = -ENODEV;

	for (int tries = 0; tries < 500 && rc == -ENODEV; tries++) {
		rc = call(pool, n, blocks);
		if (rc == -ENODEV)
			sleep_us(20000);
	}
	return rc;
}

static void *member(void *arg)
{
	uint64_t first = 1000 * (1 + (uintptr_t)arg), seed = first;
	uint8_t *blocks = line_alloc((TOGETHER + 2) * SMALL_BYTES);
	struct speckv_key key;

	while (!crew.over) {
		uint64_t n = first + below(&seed, OWN);
		int rc;

		read_together(blocks, &seed);
		rc = put_number(pool, n, blocks);
		CHECK(rc == 0 || rc == -ENODEV, "put: %d", rc);
		if (rc == 0 && below(&seed, 2)) {
			key = key_of(n);
			rc = speckv_drop(pool, &key, 1);
			CHECK(rc >= 0, "drop: %d", rc);
		}
		rc = get_number(pool, first + below(&seed, OWN), blocks);
		CHECK(rc == 0 || rc == -ENODEV || rc == -ENOENT, "get: %d", rc);
	}
	for (uint64_t n = first; n < first + OWN; n++)
		EXPECT(0, at_last(put_number, n, blocks));
	for (uint64_t n = first; n < first + OWN; n++)
		EXPECT(0, at_last(get_number, n, blocks));
	free(blocks);
	return NULL;
}

/*
 * The connection breaks while threads have commands under way on all of its lanes; whoever needs it
 * next makes it anew, and only once.
 */
static void a_connection_is_made_anew_under_the_traffic_of_threads(void)
{
	pthread_t threads[MEMBERS];
	uint64_t seed = now_nanoseconds(), before;

	begin("crew", SPECKV_CODEC_RAW);
	for (uintptr_t i = 0; i < MEMBERS; i++)
		CHECK(pthread_create(&threads[i], NULL, member, (void *)i) == 0, "thread");
	for (int i = 0; i < BREAKS; i++) {
		before = crew.good;
		for (int waits = 0; crew.good < before + 2 * TOGETHER; waits++, sleep_us(2000))
			CHECK(waits < 20000, "nothing is read any more");
		sleep_us((long)below(&seed, 20000));
		if (i % 2) { /* its queues go, the card stays */
			struct speckv_admin *admin;

			EXPECT(0, speckv_admin_open(test_ctx, "emu:card", &admin));
			EXPECT(0,
				speckv_admin_reset(admin,
					below(&seed, 2) ? SPECKV_RESTART_ENGINE
							: SPECKV_RESTART_CARD));
			speckv_admin_close(admin);
		} else {
			test_card_stop(SIGKILL);
			sleep_us((long)below(&seed, 20000));
			test_card_start();
		}
	}
	crew.over = true;
	for (int i = 0; i < MEMBERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0, "join");
	fprintf(stderr, "%llu reads, %llu of them while the card was gone\n",
		(unsigned long long)(crew.good + crew.lost), (unsigned long long)crew.lost);
	expect_sound(dev, "crew", BLOCKS + MEMBERS * OWN);
	end("crew");
}

static void forget_what_this_machine_knew(void)
{
	char path[300];

	snprintf(path, sizeof(path), "rm -rf '%s/cards'", test_dir);
	CHECK(system(path) == 0, "rm");
}

static void an_index_that_is_gone_is_made_anew_from_the_card(void)
{
	struct speckv_pool_info info;
	struct speckv_key key;

	begin("known", SPECKV_CODEC_INT8_DELTA_RLE);
	for (uint64_t n = 0; n < BLOCKS; n += 3) {
		key = key_of(n);
		EXPECT(1, speckv_drop(pool, &key, 1));
	}
	speckv_pool_close(pool);
	speckv_device_close(dev);
	forget_what_this_machine_knew(); /* as a reboot does */
	dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_info(dev, "known", &info));
	CHECK(info.blocks == BLOCKS - BLOCKS / 3 &&
			info.config.codec == SPECKV_CODEC_INT8_DELTA_RLE,
		"%llu blocks", (unsigned long long)info.blocks);
	pool = attach_pool(dev, "known", "a");
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(n % 3 ? 0 : -ENOENT, get_number(pool, n, buffer));
	expect_sound(dev, "known", BLOCKS - BLOCKS / 3);
	for (uint64_t n = 0; n < BLOCKS; n += 3)
		EXPECT(0, put_number(pool, n, buffer));
	expect_sound(dev, "known", BLOCKS);
	end("known");
}

/* The card keeps frames that only this machine's tables could read. */
static void a_calibration_goes_with_what_this_machine_knew(void)
{
	struct calibration_shape shape = {
		.layers = 2, .kv_heads = 1, .head_dim = 64, .bits = 3, .rotary = "none", .unit = -12
	};
	struct speckv_pool_config config = small_pool("calibrated", 8 * MIB);
	uint64_t seed = 3;
	struct calibration_file file = random_calibration(&seed, &shape);
	struct speckv_check_report report;
	struct speckv_key key = key_of(1);

	config.codec = SPECKV_CODEC_Q5C;
	config.calibration = file.bytes;
	config.calibration_bytes = file.length;
	dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "calibrated", "a");
	memset(buffer, 0x3f, SMALL_BYTES);
	EXPECT(0, put_block(pool, &key, buffer, SMALL_BYTES));
	EXPECT(0, get_block(pool, &key, buffer, SMALL_BYTES));
	speckv_pool_close(pool);
	speckv_device_close(dev);
	forget_what_this_machine_knew();
	dev = open_device("emu:card", 0);
	REFUSED(-EUCLEAN, "its calibration (its digest is not known) is not on this machine",
		speckv_pool_open(dev, "calibrated", NULL, &pool));
	EXPECT(0, check_pool(dev, "calibrated", SPECKV_CHECK_DEEP, &report));
	CHECK(report.blocks == 1 && report.blocks_verified == 1, "it is there all the same");
	EXPECT(0, speckv_pool_destroy(dev, "calibrated", NULL, NULL));
	speckv_device_close(dev);
	free(file.bytes);
}

static void a_pool_that_is_gone_from_the_card_is_forgotten(void)
{
	struct speckv_pool_info info;
	char path[300];

	begin("gone", SPECKV_CODEC_RAW);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	test_card_stop(SIGKILL);
	snprintf(path, sizeof(path), "%s/emu/card/memory", test_dir);
	CHECK(unlink(path) == 0, "unlink"); /* the same card, its memory blank */
	test_card_start();
	begin("next", SPECKV_CODEC_RAW);
	EXPECT(-ENOENT, speckv_pool_info(dev, "gone", &info));
	end("next");
}

static void a_command_that_never_comes_back_is_an_error_and_no_hang(void)
{
	begin("stuck", SPECKV_CODEC_RAW);
	control("inject stuck 0 0 %llu\n", 1ull);
	/* given up, and asked again over another connection */
	EXPECT(0, get_number(pool, 3, buffer));
	control("inject slow 0 %llu 2\n", 30000000ull);
	EXPECT(0, get_number(pool, 4, buffer));
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(pool, n, buffer));
	store_release(&strays, true);
	EXPECT(-ENODEV, get_number(pool, 5, buffer));
	store_release(&strays, false);
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(pool, n, buffer));
	end("stuck");
}

/* Blocks that the card dropped, and commands that it has and has not answered. */
static void card_counts(uint64_t *drops, uint64_t *outstanding)
{
	struct speckv_card_health health;
	struct speckv_admin *admin;
	struct speckv_stats stats;
	uint32_t number;

	EXPECT(0, speckv_admin_open(test_ctx, "emu:card", &admin));
	EXPECT(0, speckv_admin_pool(admin, "doubtful", &number));
	EXPECT(0, speckv_admin_stats(admin, number, &stats));
	EXPECT(0, speckv_admin_health(admin, &health));
	speckv_admin_close(admin);
	*drops = stats.counters[SPECKV_COUNT_DROPS];
	*outstanding = health.outstanding;
}

static void *drop_seven(void *arg)
{
	struct speckv_key key = key_of(7);

	/* nobody answers: not dropped, for all that is known */
	EXPECT(0, speckv_drop(pool, &key, 1));
	return arg;
}

/* The card dies with the order to drop a block: carried out and not answered, or not even begun. */
static void die_while_dropping(bool carried_out)
{
	uint64_t before, drops, outstanding;
	pthread_t thread;

	card_counts(&before, &outstanding);
	control("inject %s 0 0 1\n", carried_out ? "lost-completion" : "stuck");
	CHECK(pthread_create(&thread, NULL, drop_seven, NULL) == 0, "thread");
	do {
		sleep_us(1000);
		card_counts(&drops, &outstanding);
	} while (carried_out ? drops == before : outstanding == 0);
	test_card_stop(SIGKILL);
	CHECK(pthread_join(thread, NULL) == 0, "join");
	test_card_start();
	sleep_us(150000);
}

static void a_drop_whose_answer_is_lost_leaves_a_miss(void)
{
	enum { REPAIR, PUT, DROP, WAYS };
	struct speckv_check_report report;
	struct speckv_stats stats;
	struct speckv_key key = key_of(7);

	begin("doubtful", SPECKV_CODEC_RAW);
	for (int round = 0; round < 2 * WAYS; round++) {
		die_while_dropping(round < WAYS);
		EXPECT(-ENOENT, get_number(pool, 7, buffer));
		expect_sound(dev, "doubtful", BLOCKS - 1);
		if (round % WAYS == DROP)
			EXPECT(1, speckv_drop(pool, &key, 1));
		if (round % WAYS == PUT) /* and is not told that it is there */
			EXPECT(0, put_number(pool, 7, buffer));
		EXPECT(0, check_pool(dev, "doubtful", SPECKV_CHECK_REPAIR, &report));
		CHECK(report.repaired == (round % WAYS == REPAIR), "%llu repaired",
			(unsigned long long)report.repaired);
		EXPECT(0, put_number(pool, 7, buffer));
		for (uint64_t n = 0; n < BLOCKS; n++)
			EXPECT(0, get_number(pool, n, buffer));
		expect_sound(dev, "doubtful", BLOCKS);
	}
	EXPECT(0, speckv_pool_stats(dev, "doubtful", &stats));
	CHECK(stats.counters[SPECKV_COUNT_BAD] == 0, "no block was bad");
	end("doubtful");
}

static int kill_the_card(uint64_t done, uint64_t total, void *arg)
{
	bool *killed = arg;

	(void)done, (void)total;
	if (!*killed)
		test_card_stop(SIGKILL);
	*killed = true;
	return 0;
}

static void a_card_that_dies_during_a_repair_keeps_its_blocks(void)
{
	struct speckv_check_report report;
	bool killed = false;

	begin("repaired", SPECKV_CODEC_RAW);
	REFUSED(-ENODEV, "went away during the check",
		speckv_pool_check(dev, "repaired", SPECKV_CHECK_REPAIR, kill_the_card, &killed,
			&report));
	test_card_start();
	sleep_us(150000);
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(pool, n, buffer));
	expect_sound(dev, "repaired", BLOCKS);
	end("repaired");
}

static void a_page_that_went_bad_is_a_miss(void)
{
	unsigned int lost = 0;

	begin("poisoned", SPECKV_CODEC_RAW);
	for (uint64_t at = 0; at < 8 * MIB; at += MIB / 4) /* clients begin anywhere */
		control("inject poison 1 %llu 1\n", (unsigned long long)at);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		int rc = get_number(pool, n, buffer);

		CHECK(rc == 0 || rc == -EBADMSG, "%d", rc);
		lost += rc != 0;
	}
	CHECK(lost > 0 && lost < BLOCKS, "%u lost", lost);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		int rc = get_number(pool, n, buffer);

		CHECK(rc == 0 || rc == -ENOENT, "%d", rc);
	}
	/* what is stored from now on lies elsewhere */
	for (uint64_t n = 1000; n < 1000 + BLOCKS; n++)
		EXPECT(0, put_number(pool, n, buffer));
	for (uint64_t n = 1000; n < 1000 + BLOCKS; n++)
		EXPECT(0, get_number(pool, n, buffer));
	end("poisoned");
}

static int as_nobody(void *arg)
{
	struct speckv_device *mine;
	struct speckv_pool *theirs;

	CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid");
	EXPECT(0, speckv_device_open(test_ctx, "emu:card", 0, &mine));
	EXPECT(-EACCES, speckv_pool_open(mine, "private", NULL, &theirs));
	REFUSED(-EACCES, "", speckv_pool_destroy(mine, "private", NULL, NULL));
	return 0;
}

/* A user whose copy of the index is writable is still not let at the card's bytes. */
static int with_a_stolen_index(void *arg)
{
	struct speckv_pool *theirs = NULL;
	struct speckv_device *mine;
	struct speckv_key key = key_of(1);

	CHECK(setgid(65534) == 0 && setuid(65534) == 0, "setuid");
	EXPECT(0, speckv_device_open(test_ctx, "emu:card", 0, &mine));
	EXPECT(0, speckv_pool_open(mine, "private", NULL, &theirs));
	EXPECT(-EACCES, get_block(theirs, &key, buffer, SMALL_BYTES));
	CHECK(all_bytes(buffer, SMALL_BYTES, 0), "nothing was let out");
	return 0;
}

static void a_pool_of_another_user_is_out_of_reach(void)
{
	char path[600], command[1000];

	if (geteuid() != 0)
		return;
	begin("private", SPECKV_CODEC_RAW);
	snprintf(path, sizeof(path), "%s/emu/card/io", test_dir);
	CHECK(chmod(test_dir, 0755) == 0 && chmod(path, 0666) == 0, "chmod");
	snprintf(path, sizeof(path), "%s/emu", test_dir);
	CHECK(chmod(path, 0755) == 0, "chmod");
	snprintf(path, sizeof(path), "%s/emu/card", test_dir);
	CHECK(chmod(path, 0755) == 0, "chmod");
	EXPECT(0, wait_child(spawn(as_nobody, NULL)));
	snprintf(command, sizeof(command),
		"chmod 0666 '%s'/cards/*.pools/private '%s'/cards/*.pools/.*.lock", test_dir,
		test_dir);
	CHECK(system(command) == 0, "chmod");
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) &&
			strcmp(dev->table->pools[i].name, "private") == 0)
			/* of this machine's files; the card says otherwise */
			dev->table->pools[i].mode = 0666;
	EXPECT(0, wait_child(spawn(with_a_stolen_index, NULL)));
	end("private");
}

static void what_does_not_fit_is_said_with_what_does(void)
{
	struct speckv_pool_config config = small_pool("large", 4096 * MIB);

	dev = open_device("emu:card", 0);
	REFUSED(-ENOSPC, "free", speckv_pool_create(dev, &config, NULL));
	EXPECT(-ENOENT, speckv_pool_info(dev, "large", &(struct speckv_pool_info){ 0 }));
	speckv_device_close(dev);
}

static void an_image_is_activated_only_under_the_firmware_lock(void)
{
	struct speckv_admin *admin;

	EXPECT(0, speckv_admin_open(test_ctx, "emu:card", &admin));
	REFUSED(-EPERM, "firmware lock",
		speckv_admin_firmware_activate(admin, SPECKV_IMAGE_GOLDEN, NULL, 0, 0, NULL));
	REFUSED(-EALREADY, "already",
		speckv_admin_firmware_activate(admin, SPECKV_IMAGE_GOLDEN, NULL, 0,
			SPECKV_ACTIVATE_DRY_RUN, NULL));
	EXPECT(0, speckv_admin_firmware_lock(admin, 0));
	REFUSED(-EALREADY, "already",
		speckv_admin_firmware_activate(admin, SPECKV_IMAGE_GOLDEN, NULL, 0, 0, NULL));
	speckv_admin_close(admin);
}

int main(void)
{
	struct speckv_device *none;

	test_begin(150);
	buffer = line_alloc(2 * SMALL_BYTES);
	REFUSED(-ENOENT, "emu start other", speckv_device_open(test_ctx, "emu:other", 0, &none));
	a_card_that_is_killed_comes_back_with_its_blocks();
	a_card_that_dies_under_traffic_gives_no_wrong_byte();
	a_connection_is_made_anew_under_the_traffic_of_threads();
	an_index_that_is_gone_is_made_anew_from_the_card();
	a_calibration_goes_with_what_this_machine_knew();
	a_pool_that_is_gone_from_the_card_is_forgotten();
	a_command_that_never_comes_back_is_an_error_and_no_hang();
	a_drop_whose_answer_is_lost_leaves_a_miss();
	a_card_that_dies_during_a_repair_keeps_its_blocks();
	a_page_that_went_bad_is_a_miss();
	a_pool_of_another_user_is_out_of_reach();
	what_does_not_fit_is_said_with_what_does();
	an_image_is_activated_only_under_the_firmware_lock();
	test_card_stop(SIGKILL);
	REFUSED(-ENXIO, "emu start card", speckv_device_open(test_ctx, "emu:card", 0, &none));
	free(buffer);
	test_end();
	return 0;
}
