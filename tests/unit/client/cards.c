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
#include "transport/transport.h"

#include "cards.h"

struct speckv_device *cards_dev;
struct speckv_pool *cards_pool;
uint8_t *cards_buffer;

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

void cards_control(const char *format, ...)
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

void cards_restart(enum speckv_restart what)
{
	struct speckv_admin *admin;

	EXPECT(0, speckv_admin_open(test_ctx, "emu:card", &admin));
	EXPECT(0, speckv_admin_reset(admin, what));
	speckv_admin_close(admin);
}

void cards_begin(const char *name, uint32_t codec)
{
	struct speckv_pool_config config = small_pool(name, 8 * MIB);

	config.codec = codec;
	cards_dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_create(cards_dev, &config, NULL));
	cards_pool = attach_pool(cards_dev, name, "a");
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, put_number(cards_pool, n, cards_buffer));
}

void cards_end(const char *name)
{
	speckv_pool_close(cards_pool);
	EXPECT(0, speckv_pool_destroy(cards_dev, name, NULL, NULL));
	speckv_device_close(cards_dev);
}

static void a_card_that_is_killed_comes_back_with_its_blocks(void)
{
	struct speckv_key key = key_of(7);

	cards_begin("killed", SPECKV_CODEC_RAW);
	for (int round = 0; round < 3; round++) {
		test_card_stop(SIGKILL);
		for (uint64_t n = 0; n < 4; n++)
			EXPECT(-ENODEV, get_number(cards_pool, n, cards_buffer));
		EXPECT(-ENODEV, put_number(cards_pool, 1000, cards_buffer));
		/* not dropped: it would be there again */
		EXPECT(0, speckv_drop(cards_pool, &key, 1));
		test_card_start();
		for (uint64_t n = 0; n < BLOCKS; n++)
			EXPECT(0, get_number(cards_pool, n, cards_buffer));
		EXPECT(0, put_number(cards_pool, 2000 + (uint64_t)round, cards_buffer));
	}
	expect_sound(cards_dev, "killed", BLOCKS + 3);
	cards_end("killed");
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

	cards_begin("known", SPECKV_CODEC_INT8_DELTA_RLE);
	for (uint64_t n = 0; n < BLOCKS; n += 3) {
		key = key_of(n);
		EXPECT(1, speckv_drop(cards_pool, &key, 1));
	}
	speckv_pool_close(cards_pool);
	speckv_device_close(cards_dev);
	forget_what_this_machine_knew(); /* as a reboot does */
	cards_dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_info(cards_dev, "known", &info));
	CHECK(info.blocks == BLOCKS - BLOCKS / 3 &&
			info.config.codec == SPECKV_CODEC_INT8_DELTA_RLE,
		"%llu blocks", (unsigned long long)info.blocks);
	cards_pool = attach_pool(cards_dev, "known", "a");
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(n % 3 ? 0 : -ENOENT, get_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "known", BLOCKS - BLOCKS / 3);
	for (uint64_t n = 0; n < BLOCKS; n += 3)
		EXPECT(0, put_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "known", BLOCKS);
	cards_end("known");
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
	cards_dev = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_create(cards_dev, &config, NULL));
	cards_pool = attach_pool(cards_dev, "calibrated", "a");
	memset(cards_buffer, 0x3f, SMALL_BYTES);
	EXPECT(0, put_block(cards_pool, &key, cards_buffer, SMALL_BYTES));
	EXPECT(0, get_block(cards_pool, &key, cards_buffer, SMALL_BYTES));
	speckv_pool_close(cards_pool);
	speckv_device_close(cards_dev);
	forget_what_this_machine_knew();
	cards_dev = open_device("emu:card", 0);
	REFUSED(-EUCLEAN, "its calibration (its digest is not known) is not on this machine",
		speckv_pool_open(cards_dev, "calibrated", NULL, &cards_pool));
	EXPECT(0, check_pool(cards_dev, "calibrated", SPECKV_CHECK_DEEP, &report));
	CHECK(report.blocks == 1 && report.blocks_verified == 1, "it is there all the same");
	EXPECT(0, speckv_pool_destroy(cards_dev, "calibrated", NULL, NULL));
	speckv_device_close(cards_dev);
	free(file.bytes);
}

static void a_pool_that_is_gone_from_the_card_is_forgotten(void)
{
	struct speckv_pool_info info;
	char path[300];

	cards_begin("gone", SPECKV_CODEC_RAW);
	speckv_pool_close(cards_pool);
	speckv_device_close(cards_dev);
	test_card_stop(SIGKILL);
	snprintf(path, sizeof(path), "%s/emu/card/memory", test_dir);
	CHECK(unlink(path) == 0, "unlink"); /* the same card, its memory blank */
	test_card_start();
	cards_begin("next", SPECKV_CODEC_RAW);
	EXPECT(-ENOENT, speckv_pool_info(cards_dev, "gone", &info));
	cards_end("next");
}

static void a_command_that_never_comes_back_is_an_error_and_no_hang(void)
{
	cards_begin("stuck", SPECKV_CODEC_RAW);
	cards_control("inject stuck 0 0 %llu\n", 1ull);
	/* given up, and asked again over another connection */
	EXPECT(0, get_number(cards_pool, 3, cards_buffer));
	cards_control("inject slow 0 %llu 2\n", 30000000ull);
	EXPECT(0, get_number(cards_pool, 4, cards_buffer));
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	store_release(&strays, true);
	EXPECT(-ENODEV, get_number(cards_pool, 5, cards_buffer));
	store_release(&strays, false);
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	cards_end("stuck");
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

	cards_begin("repaired", SPECKV_CODEC_RAW);
	REFUSED(-ENODEV, "went away during the check",
		speckv_pool_check(cards_dev, "repaired", SPECKV_CHECK_REPAIR, kill_the_card,
			&killed, &report));
	test_card_start();
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "repaired", BLOCKS);
	cards_end("repaired");
}

static void a_page_that_went_bad_is_a_miss(void)
{
	unsigned int lost = 0;

	cards_begin("poisoned", SPECKV_CODEC_RAW);
	for (uint64_t at = 0; at < 8 * MIB; at += MIB / 4) /* clients begin anywhere */
		cards_control("inject poison 1 %llu 1\n", (unsigned long long)at);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		int rc = get_number(cards_pool, n, cards_buffer);

		CHECK(rc == 0 || rc == -EBADMSG, "%d", rc);
		lost += rc != 0;
	}
	CHECK(lost > 0 && lost < BLOCKS, "%u lost", lost);
	for (uint64_t n = 0; n < BLOCKS; n++) {
		int rc = get_number(cards_pool, n, cards_buffer);

		CHECK(rc == 0 || rc == -ENOENT, "%d", rc);
	}
	/* what is stored from now on lies elsewhere */
	for (uint64_t n = 1000; n < 1000 + BLOCKS; n++)
		EXPECT(0, put_number(cards_pool, n, cards_buffer));
	for (uint64_t n = 1000; n < 1000 + BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	cards_end("poisoned");
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
	EXPECT(-EACCES, get_block(theirs, &key, cards_buffer, SMALL_BYTES));
	CHECK(all_bytes(cards_buffer, SMALL_BYTES, 0), "nothing was let out");
	return 0;
}

static void a_pool_of_another_user_is_out_of_reach(void)
{
	char path[600], command[1000];

	if (geteuid() != 0)
		return;
	cards_begin("private", SPECKV_CODEC_RAW);
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
		if (load_acquire(&cards_dev->table->pools[i].state) &&
			strcmp(cards_dev->table->pools[i].name, "private") == 0)
			/* of this machine's files; the card says otherwise */
			cards_dev->table->pools[i].mode = 0666;
	EXPECT(0, wait_child(spawn(with_a_stolen_index, NULL)));
	cards_end("private");
}

static void what_does_not_fit_is_said_with_what_does(void)
{
	struct speckv_pool_config config = small_pool("large", 4096 * MIB);

	cards_dev = open_device("emu:card", 0);
	REFUSED(-ENOSPC, "free", speckv_pool_create(cards_dev, &config, NULL));
	EXPECT(-ENOENT, speckv_pool_info(cards_dev, "large", &(struct speckv_pool_info){ 0 }));
	speckv_device_close(cards_dev);
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
	cards_buffer = line_alloc(2 * SMALL_BYTES);
	REFUSED(-ENOENT, "emu start other", speckv_device_open(test_ctx, "emu:other", 0, &none));
	a_card_that_is_killed_comes_back_with_its_blocks();
	cards_resets();
	cards_under_traffic();
	an_index_that_is_gone_is_made_anew_from_the_card();
	a_calibration_goes_with_what_this_machine_knew();
	a_pool_that_is_gone_from_the_card_is_forgotten();
	a_command_that_never_comes_back_is_an_error_and_no_hang();
	cards_answers();
	a_card_that_dies_during_a_repair_keeps_its_blocks();
	a_page_that_went_bad_is_a_miss();
	a_pool_of_another_user_is_out_of_reach();
	what_does_not_fit_is_said_with_what_does();
	an_image_is_activated_only_under_the_firmware_lock();
	test_card_stop(SIGKILL);
	REFUSED(-ENXIO, "emu start card", speckv_device_open(test_ctx, "emu:card", 0, &none));
	free(cards_buffer);
	test_end();
	return 0;
}
