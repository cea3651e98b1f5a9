/* SPDX-License-Identifier: MIT */
/*
 * What tests with another user share: a runtime folder of this user's with a folder beside it. They
 * need root: the other user is uid 65534, or 4242 where it has a pool.
 */
#ifndef TEST_CLIENT_TRUST_H
#define TEST_CLIENT_TRUST_H

#include <grp.h>
#include <stdatomic.h>

#include "client/admin/admin.h"

#include "harness.h"

#define STRANGER 65534
#define SKIPPED 77

static char runtime[300], victim[300];
static struct speckv_pool_config config;

static inline void fresh(void)
{
	empty_test_dir();
	snprintf(runtime, sizeof(runtime), "%s/runtime", test_dir);
	snprintf(victim, sizeof(victim), "%s/victim", test_dir);
	CHECK(mkdir(runtime, 0755) == 0 && mkdir(victim, 0755) == 0, "mkdir");
	CHECK(setenv("SPECKV_RUNTIME_DIR", runtime, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	config = small_pool("passwd", 2 * MIB);
}

static inline const char *in(const char *folder, const char *name)
{
	static char paths[4][1000];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static inline struct lay_pool_record *record_of(struct speckv_device *dev, const char *name)
{
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) &&
			strcmp(dev->table->pools[i].name, name) == 0)
			return &dev->table->pools[i];
	CHECK(false, "no record %s", name);
	return NULL;
}

/* Ends the test where another user's files cannot be made; else begins it. */
static inline void begin_as_root(unsigned int seconds)
{
	if (geteuid() != 0) {
		fprintf(stderr, "not root: another user's files cannot be made\n");
		exit(SKIPPED);
	}
	test_begin(seconds);
}

#endif
