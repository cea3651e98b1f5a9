// SPDX-License-Identifier: MIT
/* A card stops and is reset: what a call found of it says nothing of a later call. */
#include <speckv/card.h>

#include "client/card/card.h"

#include "cards.h"

static _Atomic unsigned int dials; /* connections of pools that were tried */
static _Atomic bool late; /* each try takes long, as on a machine that is busy */

int __real_card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out);
int __wrap_card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out);

int __wrap_card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out)
{
	dials++;
	if (load_acquire(&late))
		sleep_us(150000);
	return __real_card_dial(ctx, device_name, role, arena_bytes, out);
}

static void stop_the_card(void)
{
	cards_control("inject fatal 0 %u 1\n", 4u);
}

static void a_state_that_is_over_is_not_reported(void)
{
	cards_begin("over", SPECKV_CODEC_RAW);
	for (uint64_t round = 0; round < 6; round++) {
		/* a try that failed, however long it took, says nothing of the next call */
		store_release(&late, round % 2);
		stop_the_card();
		EXPECT(-ENODEV, get_number(cards_pool, 1, cards_buffer));
		EXPECT(-ENODEV, put_number(cards_pool, 1000 + round, cards_buffer));
		cards_restart(SPECKV_RESTART_CARD);
		if (round < 3)
			EXPECT(0, put_number(cards_pool, 1000 + round, cards_buffer));
		EXPECT(0, get_number(cards_pool, 1, cards_buffer));
		EXPECT(0, put_number(cards_pool, 1000 + round, cards_buffer));
	}
	store_release(&late, false);
	expect_sound(cards_dev, "over", BLOCKS + 6);
	cards_end("over");
}

static void a_stopped_card_is_not_asked_anew_for_every_block(void)
{
	struct speckv_request requests[BLOCKS];
	unsigned int before;

	cards_begin("batch", SPECKV_CODEC_RAW);
	stop_the_card();
	for (int put = 0; put < 2; put++) {
		memset(requests, 0, sizeof(requests));
		for (unsigned int i = 0; i < BLOCKS; i++) {
			requests[i].key = key_of(put * 1000u + i);
			requests[i].buffer = cards_buffer;
			requests[i].buffer_bytes = SMALL_BYTES;
		}
		before = dials;
		EXPECT(0,
			put ? speckv_put(cards_pool, requests, BLOCKS)
			    : speckv_get(cards_pool, requests, BLOCKS));
		for (unsigned int i = 0; i < BLOCKS; i++)
			EXPECT(-ENODEV, requests[i].status);
		CHECK(dials - before >= 1 && dials - before < BLOCKS / 2, "asked %u times",
			dials - before);
	}
	cards_restart(SPECKV_RESTART_CARD);
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	cards_end("batch");
}

void cards_resets(void)
{
	a_state_that_is_over_is_not_reported();
	a_stopped_card_is_not_asked_anew_for_every_block();
}
