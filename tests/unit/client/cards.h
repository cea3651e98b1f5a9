/* SPDX-License-Identifier: MIT */
/* A pool on the card with some blocks in it, as the tests of cards.c begin and end with. */
#ifndef TEST_CLIENT_CARDS_H
#define TEST_CLIENT_CARDS_H

#include <speckv/card.h>

#include "client/admin/admin.h"

#include "harness.h"

#define BLOCKS 60

extern struct speckv_device *cards_dev;
extern struct speckv_pool *cards_pool;
extern uint8_t *cards_buffer; /* of two blocks */

void cards_begin(const char *name, uint32_t codec);
void cards_end(const char *name);
/* One of the emulator's own commands. */
__attribute__((format(printf, 1, 2))) void cards_control(const char *format, ...);

/* Restart the card or a part of it; a card boots before it serves its next connection. */
void cards_restart(enum speckv_restart what);

/* Answers of a card are lost, of commands that it carried out. */
void cards_answers(void);

/* A card stops, is reset, and is used on. */
void cards_resets(void);

/* A card goes while processes, and threads of one attachment, have commands under way. */
void cards_under_traffic(void);

#endif
