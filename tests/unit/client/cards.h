/* SPDX-License-Identifier: MIT */
/* A pool on the card with some blocks in it, as the tests of cards.c begin and end with. */
#ifndef TEST_CLIENT_CARDS_H
#define TEST_CLIENT_CARDS_H

#include "client/admin/admin.h"

#include "harness.h"

#define BLOCKS 60

extern struct speckv_device *cards_dev;
extern struct speckv_pool *cards_pool;
extern uint8_t *cards_buffer; /* of two blocks */

void cards_begin(const char *name, uint32_t codec);
void cards_end(const char *name);

/* A card goes while processes, and threads of one attachment, have commands under way. */
void cards_under_traffic(void);

#endif
