// SPDX-License-Identifier: MIT
/*
 * A card as a process: blocks go in and come back over shared memory, survive SIGKILL of the card,
 * and are out of reach without a grant.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"

#define BLOCKS 40
#define RUN_BYTES (66ull * 1024)

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	struct admin admin;
	struct io io, stranger;
	uint8_t uuid[16], other_uuid[16];
	unsigned int pool, other;

	HOLDS(argc == 2);
	card_start(&card, argv[1]);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
	other = admin_create_pool(&admin, "batch", 8 << 20, other_uuid);
	HOLDS(other != pool);
	io_open(&io, &card);
	io_open(&stranger, &card);
	HOLDS(io_write(&io, pool, 1, 0, 1) == SPECKV_STATUS_DENIED); /* no grant yet */
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	for (uint64_t n = 0; n < BLOCKS; n++)
		HOLDS(io_write(&io, pool, n, n * RUN_BYTES, n + 1) == SPECKV_STATUS_OK);
	for (uint64_t n = 0; n < BLOCKS; n++)
		HOLDS(io_read(&io, pool, n, n * RUN_BYTES, n + 1) == SPECKV_STATUS_OK);
	/* another generation */
	HOLDS(io_read(&io, pool, 3, 3 * RUN_BYTES, 99) == SPECKV_STATUS_NOT_FOUND);
	/* beyond the pool */
	HOLDS(io_read(&io, pool, 3, 64 << 20, 4) == SPECKV_STATUS_TRANSLATION_FAULT);
	/* a pool that was not granted */
	HOLDS(io_read(&io, other, 3, 3 * RUN_BYTES, 4) == SPECKV_STATUS_DENIED);
	/* a client that has no grant */
	HOLDS(io_read(&stranger, pool, 3, 3 * RUN_BYTES, 4) == SPECKV_STATUS_DENIED);
	admin_grant(&admin, pool, uuid, stranger.function, SPECKV_RIGHT_READ);
	HOLDS(io_read(&stranger, pool, 3, 3 * RUN_BYTES, 4) == SPECKV_STATUS_OK);
	/* reading is not writing */
	HOLDS(io_write(&stranger, pool, 90, 50 * RUN_BYTES, 90) == SPECKV_STATUS_DENIED);
	io_close(&stranger);

	card_kill(&card, SIGKILL); /* whatever it was doing */
	{
		struct speckv_cmd_bare nop = { .opcode = SPECKV_IO_NOP };

		/* an error, and no hang */
		HOLDS(queue_call(&io.queue, &nop, 5000000000ull, NULL, NULL) < 0);
	}
	HOLDS(io.transport->ops->alive(io.transport) != 0);
	io_close(&io);
	admin_close(&admin);

	card_start(&card, argv[1]);
	admin_open(&admin, &card);
	HOLDS(admin_find_pool(&admin, "chat") == pool);
	io_open(&io, &card);
	/* grants do not outlive connections */
	HOLDS(io_read(&io, pool, 3, 3 * RUN_BYTES, 4) == SPECKV_STATUS_DENIED);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ);
	for (uint64_t n = 0; n < BLOCKS; n++)
		HOLDS(io_read(&io, pool, n, n * RUN_BYTES, n + 1) == SPECKV_STATUS_OK);
	io_close(&io);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	printf("blocks over a card process: as written, through its death\n");
	return 0;
}
