/* SPDX-License-Identifier: MIT */
/*
 * The frame of the C programs here: `PROGRAM --list` names the behaviours, `PROGRAM NAME` shows
 * one, exit 0 when it holds.
 */
#ifndef BEHAVIOURS_H
#define BEHAVIOURS_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/speckv.h>

#define POOL_BYTES (64ull << 20)

/* This machine's memory, or the emulated card that was started for the test. */
#define MEMORY (getenv("SPECKV_TEST_EMULATOR") ? "emu:card" : "host:DRAM")

/* A pool on MEMORY in the runtime folder of the test, attached. */
static struct {
	struct speckv_ctx *ctx;
	struct speckv_device *device;
	struct speckv_pool *pool;
} fixture;

#define CHECK_REASON() (fixture.ctx ? speckv_strerror(fixture.ctx) : "no context")
#include "../../check.h"

struct behaviour {
	const char *name;
	void (*show)(void);
};

static void set_up(void)
{
	struct speckv_pool_config config = { .name = "parity", .capacity_bytes = POOL_BYTES };
	struct speckv_pool_info info;

	HOLDS(speckv_ctx_create(&fixture.ctx) == 0);
	HOLDS(speckv_device_open(fixture.ctx, MEMORY, SPECKV_OPEN_CREATE, &fixture.device) == 0);
	HOLDS(speckv_pool_create(fixture.device, &config, &info) == 0);
	HOLDS(speckv_pool_open(fixture.device, "parity", NULL, &fixture.pool) == 0);
}

static void tear_down(void)
{
	speckv_pool_close(fixture.pool);
	HOLDS(speckv_pool_destroy(fixture.device, "parity", NULL, NULL) == 0);
	speckv_device_close(fixture.device);
	HOLDS(speckv_device_remove(fixture.ctx, MEMORY, 0) == 0);
	speckv_ctx_destroy(fixture.ctx);
}

static int show(const struct behaviour *behaviours, int count, int argc, char **argv)
{
	if (argc != 2)
		return 2;
	for (int i = 0; i < count; i++) {
		if (strcmp(argv[1], "--list") == 0) {
			puts(behaviours[i].name);
		} else if (strcmp(argv[1], behaviours[i].name) == 0) {
			set_up();
			behaviours[i].show();
			tear_down();
			return 0;
		}
	}
	return strcmp(argv[1], "--list") == 0 ? 0 : 2;
}

#endif
