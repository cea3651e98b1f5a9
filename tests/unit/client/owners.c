// SPDX-License-Identifier: MIT
/* A pool is its owner's and its group's, and at no instant more than that while it is given away. */
#include <linux/capability.h>
#include <sys/syscall.h>

#include "trust.h"

/* Users with no right but to read, and those of a group. */
static int as_member(void *arg)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);

	(void)arg;
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0 && setgid(4343) == 0 && setuid(4343) == 0,
		"setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	dev = open_device("host:DRAM", 0);
	EXPECT(0, speckv_pool_open(dev, "passwd", NULL, &pool));
	EXPECT(0, put_number(pool, 1, buffer));
	EXPECT(0, get_number(pool, 1, buffer));
	speckv_pool_close(pool);
	REFUSED(-EACCES, "permission", speckv_pool_destroy(dev, "passwd", NULL, NULL));
	REFUSED(-EACCES, "permission",
		speckv_pool_create(dev,
			&(struct speckv_pool_config){ .name = "mine",
				.capacity_bytes = 2 * MIB,
				.geometry = small_shape },
			NULL));
	speckv_device_close(dev);
	return 0;
}

static int as_owner(void *arg)
{
	struct speckv_pool_config shared = small_pool("passwd", 2 * MIB);
	struct speckv_device *dev;

	(void)arg;
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0 && setgid(5000) == 0 && setuid(4242) == 0,
		"setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	shared.mode = 0660;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &shared, NULL));
	speckv_device_close(dev);
	return 0;
}

static int as_other(void *arg)
{
	struct speckv_device *dev;

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(4444) == 0 && setuid(4444) == 0, "setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	REFUSED(-EACCES, "belongs to uid 4242", speckv_device_open(test_ctx, "host:DRAM", 0, &dev));
	return 0;
}

static void a_group_may_share_and_root_is_in_none(void)
{
	struct speckv_device *dev;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	config.gid = 5000;
	config.mode = 0660;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE); /* root's folder, a group's pool */
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	EXPECT(0, wait_child(spawn(as_member, NULL)));

	fresh(); /* a user's folder, shared with a group of that user's */
	CHECK(chown(runtime, 4242, 5000) == 0, "chown");
	EXPECT(0, wait_child(spawn(as_owner, NULL)));
	EXPECT(0, wait_child(spawn(as_member, NULL)));
	EXPECT(0, wait_child(spawn(as_other, NULL)));
	/* root shares nothing, whatever its groups */
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0, "setgroups");
	REFUSED(-EACCES, "belongs to uid 4242", speckv_device_open(test_ctx, "host:DRAM", 0, &dev));
	CHECK(setgroups(0, NULL) == 0, "setgroups");
}

/*
 * In front of the C library's: what files that change hands let be done on the way, and by which
 * group.
 */
static const struct owned {
	gid_t gid;
	mode_t mode;
} *steps; /* before and after */
static unsigned int changes;

static void look_at_step(int fd)
{
	struct stat st;

	if (!steps || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	changes++;
	for (unsigned int i = 0; i < 2; i++)
		st.st_mode &= steps[i].gid == st.st_gid ? ~(steps[i].mode & 070) : ~0u;
	CHECK(!(st.st_mode & 070), "group %u gets %o", st.st_gid, st.st_mode & 070);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
	int rc = (int)syscall(SYS_fchown, fd, uid, gid);

	look_at_step(fd);
	return rc;
}

int fchmod(int fd, mode_t mode)
{
	int rc = (int)syscall(SYS_fchmod, fd, mode);

	look_at_step(fd);
	return rc;
}

/* May give files away, and then not change them. */
static int gives_as_owner(void *arg)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	struct speckv_pool_config set = { .uid = 4242, .gid = 5000, .mode = 0660 };

	(void)arg;
	CHECK(syscall(SYS_capget, &header, caps) == 0, "capget");
	caps[0].effective &= ~(1u << CAP_FOWNER);
	CHECK(syscall(SYS_capset, &header, caps) == 0, "capset");
	EXPECT(0,
		speckv_pool_set(open_device("host:DRAM", 0), "passwd",
			SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	return 0;
}

/*
 * A pool that is given away with another mode: at no instant may the old group do what the new one
 * shall, or the other way round.
 */
static void a_pool_that_changes_hands_is_for_no_one_between(void)
{
	static const struct owned made[] = { { 0, 0600 }, { 5000, 0660 } },
				  back[] = { { 5000, 0660 }, { 0, 0600 } },
				  wide[] = { { 5000, 0600 }, { 0, 0660 } };
	struct speckv_pool_config set = { .uid = 0, .gid = 0, .mode = 0600 };
	struct speckv_device *dev;

	fresh();
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	config.uid = 4242;
	config.gid = 5000;
	config.mode = 0660;
	steps = made;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	steps = back;
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	steps = NULL;
	set = (struct speckv_pool_config){ .uid = 4242, .gid = 5000, .mode = 0600 };
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER, &set, NULL));
	set = (struct speckv_pool_config){ .uid = 0, .gid = 0, .mode = 0660 };
	steps = wide;
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	steps = NULL;
	set = (struct speckv_pool_config){ .uid = 0, .gid = 0, .mode = 0600 };
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_MODE, &set, NULL));
	EXPECT(0, wait_child(spawn(gives_as_owner, NULL)));
	CHECK(changes >= 10, "%u steps were looked at", changes);
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	speckv_device_close(dev);
	remove_device("host:DRAM");
}

int main(void)
{
	begin_as_root(100);
	a_group_may_share_and_root_is_in_none();
	a_pool_that_changes_hands_is_for_no_one_between();
	test_end();
	return 0;
}
