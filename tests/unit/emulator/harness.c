// SPDX-License-Identifier: MIT
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <speckv/speckv.h>

#include <speckv_regs.h>

#define SECOND 1000000000ull

void card_start(struct card_process *card, const char *program)
{
	int ready[2];
	char line[16];

	if (!card->folder[0]) {
		snprintf(card->folder, sizeof(card->folder), "/tmp/speckv-emu-test-XXXXXX");
		HOLDS(mkdtemp(card->folder));
	}
	HOLDS(pipe(ready) == 0);
	card->pid = fork();
	HOLDS(card->pid >= 0);
	if (card->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no card behind */
		dup2(ready[1], STDOUT_FILENO);
		close(ready[0]);
		close(ready[1]);
		execl(program, program, "--dir", card->folder, "--memory", "64M", (char *)NULL);
		_exit(127);
	}
	close(ready[1]);
	HOLDS(read(ready[0], line, sizeof(line)) > 0 && strncmp(line, "ready", 5) == 0);
	close(ready[0]);
}

void card_kill(struct card_process *card, int number)
{
	int status;

	HOLDS(kill(card->pid, number) == 0);
	HOLDS(waitpid(card->pid, &status, 0) == card->pid);
	if (number == SIGTERM)
		HOLDS(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	else
		HOLDS(WIFSIGNALED(status) && WTERMSIG(status) == number);
}

void card_lives(const struct card_process *card)
{
	int status = 0;
	pid_t ended = waitpid(card->pid, &status, WNOHANG);

	if (ended)
		fprintf(stderr, "the card has ended: %s %d\n",
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	HOLDS(ended == 0);
}

unsigned int card_descriptors(const struct card_process *card)
{
	unsigned int count = 0;
	char path[64];
	DIR *folder;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)card->pid);
	folder = opendir(path);
	HOLDS(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

void card_clean(struct card_process *card)
{
	static const char *const names[] = { "admin", "io", "control", "memory", "flash", "uuid",
		"flash.lock", "lock", "flash.new", "uuid.new" };
	char path[256];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", card->folder, names[i]);
		unlink(path);
	}
	rmdir(card->folder);
}

struct transport *card_connect(const struct card_process *card, const char *socket,
	size_t arena_bytes)
{
	struct transport *transport;
	char path[256];
	int rc;

	snprintf(path, sizeof(path), "%s/%s", card->folder, socket);
	rc = transport_open_vfio_user((struct transport_place){ -1, path, (uid_t)-1 }, arena_bytes,
		&transport);
	if (rc)
		fprintf(stderr, "connect %s: %s\n", path, strerror(-rc));
	HOLDS(rc == 0);
	return transport;
}

/* ---- admin ---------------------------------------------------------------------------------- */

void admin_open(struct admin *admin, const struct card_process *card)
{
	admin->transport = card_connect(card, "admin", 1 << 20);
	HOLDS(queue_open_admin(&admin->queue, admin->transport, 4) == 0);
	admin->data = transport_take(admin->transport, 65536, 4096);
	HOLDS(admin->data);
}

void admin_close(struct admin *admin)
{
	admin->transport->ops->close(admin->transport);
}

unsigned int admin_create_pool(struct admin *admin, const char *name, uint64_t capacity_bytes,
	uint8_t uuid[16])
{
	struct speckv_cmd_data command = { .opcode = SPECKV_ADMIN_CREATE_POOL,
		.data_address = transport_address(admin->transport, admin->data),
		.data_bytes = sizeof(struct speckv_pool_description) };
	struct speckv_pool_description *pool = (struct speckv_pool_description *)admin->data;
	uint64_t number = 0;
	uint16_t status = 0;

	for (int i = 0; i < 16; i++)
		uuid[i] = (uint8_t)(name[0] + i * 7);
	memset(pool, 0, sizeof(*pool));
	snprintf(pool->name, sizeof(pool->name), "%s", name);
	memcpy(pool->uuid, uuid, 16);
	pool->capacity_bytes = capacity_bytes;
	pool->shape = (struct speckv_shape){ .layers = 1,
		.kv_heads = 2,
		.head_dim = 128,
		.tokens = 64,
		.dtype = SPECKV_DTYPE_BF16 };
	pool->page_bytes = 1024;
	pool->codec = SPECKV_CODEC_RAW;
	pool->mode = 0600;
	if (queue_call(&admin->queue, &command, 5 * SECOND, &number, &status) != 0)
		fprintf(stderr, "create pool: %s\n", status_text(status));
	HOLDS(status == SPECKV_STATUS_OK && number > 0);
	return (unsigned int)number;
}

void admin_grant(struct admin *admin, unsigned int pool, const uint8_t uuid[16],
	unsigned int function, uint32_t rights)
{
	struct speckv_cmd_grant command = { .opcode = SPECKV_ADMIN_GRANT,
		.pool = (uint16_t)pool,
		.function = (uint16_t)function,
		.queue = SPECKV_ALL_QUEUES,
		.rights = rights };
	uint16_t status = 0;

	memcpy(command.uuid, uuid, 16);
	if (queue_call(&admin->queue, &command, 5 * SECOND, NULL, &status) != 0)
		fprintf(stderr, "grant: %s\n", status_text(status));
	HOLDS(status == SPECKV_STATUS_OK);
}

unsigned int admin_find_pool(struct admin *admin, const char *name)
{
	struct speckv_cmd_log command = { .opcode = SPECKV_ADMIN_GET_LOG,
		.data_address = transport_address(admin->transport, admin->data),
		.data_bytes = 65536,
		.log = SPECKV_LOG_POOLS };
	struct speckv_log_header *header = (struct speckv_log_header *)admin->data;
	uint16_t status = 0;

	HOLDS(queue_call(&admin->queue, &command, 5 * SECOND, NULL, &status) == 0);
	for (uint32_t i = 0; i < header->entries; i++) {
		struct speckv_pool_description *pool =
			(struct speckv_pool_description *)(admin->data + sizeof(*header) +
				i * header->entry_bytes);

		if (strcmp(pool->name, name) == 0)
			return pool->pool;
	}
	return 0;
}

/* ---- I/O ------------------------------------------------------------------------------------ */

bool io_try(struct io *io, const struct card_process *card)
{
	uint32_t function;
	char path[256];

	snprintf(path, sizeof(path), "%s/io", card->folder);
	if (transport_open_vfio_user((struct transport_place){ -1, path, (uid_t)-1 }, 8 << 20,
		    &io->transport) != 0)
		return false;
	HOLDS(io->transport->ops->read32(io->transport, offsetof(speckv_regs_t, FUNCTION),
		      &function) == 0);
	io->function = function;
	HOLDS(queue_open_io(&io->queue, io->transport, 0, 7, 16) == 0);
	io->buffer = transport_take(io->transport, IO_BUFFER_BYTES, 4096);
	io->identity = transport_take(io->transport, 4096, 4096);
	HOLDS(io->buffer && io->identity);
	HOLDS(queue_register(&io->queue, 0, io->buffer, IO_BUFFER_BYTES,
		      SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES) == 0);
	HOLDS(queue_register(&io->queue, 1, io->identity, 4096, SPECKV_BUFFER_CARD_READS) == 0);
	return true;
}

void io_open(struct io *io, const struct card_process *card)
{
	HOLDS(io_try(io, card));
}

void io_close(struct io *io)
{
	queue_close(&io->queue);
	io->transport->ops->close(io->transport);
}

static uint64_t word_of(uint64_t n, uint64_t i)
{
	return (n + 1) * 0x9e3779b97f4a7c15ull + i * 0xd6e8feb86659fd93ull;
}

uint16_t io_write(struct io *io, unsigned int pool, uint64_t n, uint64_t address,
	uint64_t generation)
{
	struct speckv_cmd_write command = { .opcode = SPECKV_IO_WRITE,
		.pool = (uint16_t)pool,
		.buffer = 0,
		.address = address,
		.bytes = BLOCK_BYTES,
		.capacity = 66 * 1024,
		.identity_buffer = 1,
		.codec = SPECKV_CODEC_RAW };
	uint16_t status = 0;

	for (uint64_t i = 0; i < BLOCK_BYTES / 8; i++)
		((uint64_t *)io->buffer)[i] = word_of(n, i);
	memset(io->identity, 0, sizeof(*io->identity));
	memcpy(io->identity->key, &n, sizeof(n));
	io->identity->generation = generation;
	queue_call(&io->queue, &command, 5 * SECOND, NULL, &status);
	return status;
}

uint16_t io_read(struct io *io, unsigned int pool, uint64_t n, uint64_t address,
	uint64_t generation)
{
	struct speckv_cmd_read command = { .opcode = SPECKV_IO_READ,
		.pool = (uint16_t)pool,
		.buffer = 0,
		.address = address,
		.buffer_offset = 1 << 20,
		.capacity = BLOCK_BYTES,
		.generation = generation };
	uint16_t status = 0;
	uint64_t bytes = 0;

	memcpy(command.key_prefix, &n, sizeof(n));
	memset(io->buffer + (1 << 20), 0x5a, BLOCK_BYTES);
	if (queue_call(&io->queue, &command, 5 * SECOND, &bytes, &status) != 0)
		return status;
	HOLDS(bytes == BLOCK_BYTES);
	for (uint64_t i = 0; i < BLOCK_BYTES / 8; i++)
		HOLDS(((uint64_t *)(io->buffer + (1 << 20)))[i] == word_of(n, i));
	return status;
}
