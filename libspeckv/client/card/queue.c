// SPDX-License-Identifier: MIT
/* Connection to a card, and its privileged queue pair. */
#include <stdlib.h>

#include "card.h"
#include "base/base.h"
#include "base/log_entries.h"

#include <speckv_regs.h>

#define ADMIN_LOG2 3
#define ARENA_BYTES (CARD_DATA_BYTES + (64u << 10)) /* data and rings */
#define NO_STATUS 0xffffu
#define FATAL_MEMORY 1 /* of FATAL_CAUSE */
#define FATAL_THERMAL 3

struct card_admin {
	struct speckv_ctx *ctx;
	char name[SPECKV_NAME_BYTES * 4];
	struct transport *transport;
	struct queue queue;
	uint8_t *data;
	struct fork_guard guard; /* guards nothing; detects a forked child */
	pthread_mutex_t lock;
	/*
	 * errno that ended the connection: a late completion would be taken for another command's
	 */
	int broken;
	struct speckv_identify identity;
};

int card_dial(struct speckv_ctx *ctx, const char *device_name, enum transport_role role,
	size_t arena_bytes, struct transport **out)
{
	uint32_t magic = 0, version = 0;
	struct transport *t;
	int rc;

	*out = NULL;
	rc = transport_open(ctx, device_name, role, arena_bytes, &t);
	if (rc)
		return rc;
	rc = t->ops->read32(t, offsetof(speckv_regs_t, MAGIC), &magic);
	if (!rc)
		rc = t->ops->read32(t, offsetof(speckv_regs_t, MAP_VERSION), &version);
	if (!rc && magic != SPECKV_MAGIC)
		rc = -EPROTO;
	if (rc)
		rc = transport_unreachable(ctx, device_name, role, rc);
	else if (version >> 16 != SPECKV_MAP_MAJOR)
		rc = fail(ctx, -EPROTONOSUPPORT,
			"%s has a register map of version %u.%u; this build knows %u.x: use the release that it belongs to",
			device_name, version >> 16, version & 0xffff, SPECKV_MAP_MAJOR);
	if (rc)
		t->ops->close(t);
	else
		*out = t;
	return rc;
}

int card_stopped(struct speckv_ctx *ctx, const char *device_name, struct transport *t)
{
	static const char *const causes[] = { NULL, "its memory failed",
		"a transfer of its own tables failed", "it was too hot",
		"its engine failed a consistency check" };
	uint32_t status = 0, cause = 0, temperature = 0, trip = 0;
	char heat[64] = "", advice[ADVICE_BYTES];
	int rc = t->ops->read32(t, offsetof(speckv_regs_t, STATUS), &status);

	if (rc || !(status & SPECKV_REGS__STATUS__FATAL_bm))
		return 0; /* not fatal: the caller reports its own error */
	t->ops->read32(t, offsetof(speckv_regs_t, FATAL_CAUSE), &cause);
	cause &= SPECKV_REGS__FATAL_CAUSE__CAUSE_bm;
	if (cause == FATAL_THERMAL &&
		t->ops->read32(t, offsetof(speckv_regs_t, HEALTH_TEMPERATURE), &temperature) == 0 &&
		t->ops->read32(t, offsetof(speckv_regs_t, HEALTH_TRIP), &trip) == 0 && trip) {
		snprintf(heat, sizeof(heat), " (%g C now, it stops at %g C)",
			(int32_t)temperature / 1000.0, (int32_t)trip / 1000.0);
		if ((int32_t)temperature >= (int32_t)trip)
			return fail(ctx, -EIO,
				"%s has stopped: it is too hot%s; let it cool, then 'speckvctl device reset %s'",
				device_name, heat, device_name);
	}
	if (cause == FATAL_MEMORY &&
		transport_scheme(device_name)->advise(device_name, ADVISE_RESTART, advice))
		return fail(ctx, -EIO,
			"%s has stopped: its memory failed; 'speckvctl device reset %s' starts it again, or, where its file system took the memory, %s",
			device_name, device_name, advice);
	return fail(ctx, -EIO,
		"%s has stopped: %s%s; 'speckvctl device reset %s' starts it again, 'speckvctl events %s' says more",
		device_name,
		cause < sizeof(causes) / sizeof(causes[0]) && causes[cause] ? causes[cause]
									    : "a fatal error",
		heat, device_name, device_name);
}

int card_admin_open(struct speckv_ctx *ctx, const char *device_name, struct card_admin **out)
{
	struct card_admin *admin;
	int rc;

	*out = NULL;
	admin = calloc(1, sizeof(*admin));
	if (!admin)
		return fail(ctx, -ENOMEM, "out of memory");
	admin->ctx = ctx;
	snprintf(admin->name, sizeof(admin->name), "%s", device_name ? device_name : "");
	rc = card_dial(ctx, device_name, TRANSPORT_ADMIN, ARENA_BYTES, &admin->transport);
	if (rc) {
		free(admin);
		return rc;
	}
	pthread_mutex_init(&admin->lock, NULL);
	fork_guard_add(&admin->guard, -1, NULL, 0);
	rc = queue_open_admin(&admin->queue, admin->transport, ADMIN_LOG2);
	if (rc == -ETIMEDOUT || rc == -EIO) {
		int why = card_stopped(ctx, admin->name, admin->transport);

		rc = why ? why : fail(ctx, rc, "%s does not become ready", admin->name);
	} else if (rc) {
		rc = fail(ctx, rc, "%s: cannot open its admin queue: %s", admin->name,
			strerror(-rc));
	}
	admin->data = transport_take(admin->transport, CARD_DATA_BYTES, 4096);
	if (!rc && !admin->data)
		rc = fail(ctx, -ENOMEM, "out of memory");
	if (!rc)
		rc = card_identify(admin, &admin->identity);
	if (rc)
		card_admin_close(admin);
	else
		*out = admin;
	return rc;
}

void card_admin_close(struct card_admin *admin)
{
	if (!admin)
		return;
	admin->transport->ops->close(admin->transport);
	if (!fork_guard_stale(&admin->guard)) /* another thread may have held it at fork() */
		pthread_mutex_destroy(&admin->lock);
	fork_guard_release(&admin->guard);
	free(admin);
}

int card_admin_usable(struct card_admin *admin)
{
	if (fork_guard_stale(&admin->guard))
		return fail(admin->ctx, -EOWNERDEAD,
			"%s was connected to before fork(): connect again in the child",
			admin->name);
	return 0;
}

static int not_answered(const struct card_admin *admin, int rc)
{
	char advice[ADVICE_BYTES];
	bool advised = transport_scheme(admin->name)->advise(admin->name, ADVISE_LOOK, advice);

	if (rc == -ETIMEDOUT)
		return fail(admin->ctx, rc, "%s does not answer a command", admin->name);
	return fail(admin->ctx, rc == -ECONNRESET || rc == -EPROTO ? -ECONNRESET : rc,
		"%s went away in the middle of a command%s%s", admin->name, advised ? "; " : "",
		advised ? advice : "");
}

int card_admin_ask(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result, uint16_t *status)
{
	struct speckv_cmd_data command; /* the data fields are common to all commands with data */
	uint16_t answered = NO_STATUS;
	int rc;

	if (status)
		*status = NO_STATUS;
	if (in_bytes > CARD_DATA_BYTES || out_bytes > CARD_DATA_BYTES)
		return fail(admin->ctx, -EINVAL, "%s: a command's data has at most %u bytes",
			admin->name, CARD_DATA_BYTES);
	rc = card_admin_usable(admin);
	if (rc)
		return rc;
	memcpy(&command, entry, sizeof(command));
	pthread_mutex_lock(&admin->lock);
	if (admin->broken) {
		rc = admin->broken;
		pthread_mutex_unlock(&admin->lock);
		return not_answered(admin, rc);
	}
	if (in_bytes || out_bytes) {
		command.data_address = transport_address(admin->transport, admin->data);
		command.data_bytes = (uint32_t)(in_bytes > out_bytes ? in_bytes : out_bytes);
		if (in_bytes)
			memcpy(admin->data, in, in_bytes);
	}
	rc = queue_call(&admin->queue, &command, timeout_ns ? timeout_ns : CARD_PATIENCE_NS, result,
		&answered);
	if (rc && answered == NO_STATUS)
		admin->broken = rc;
	else if (!rc && out_bytes)
		memcpy(out, admin->data, out_bytes);
	pthread_mutex_unlock(&admin->lock);
	if (status)
		*status = answered;
	if (rc && answered == NO_STATUS)
		return not_answered(admin, rc);
	if (answered == SPECKV_STATUS_NOT_READY &&
		card_stopped(admin->ctx, admin->name, admin->transport))
		return -EIO;
	return rc ? fail(admin->ctx, rc, "%s: %s", admin->name, status_text(answered)) : 0;
}

int card_admin_call(struct card_admin *admin, const void *entry, const void *in, size_t in_bytes,
	void *out, size_t out_bytes, uint64_t timeout_ns, uint64_t *result)
{
	return card_admin_ask(admin, entry, in, in_bytes, out, out_bytes, timeout_ns, result, NULL);
}

const struct speckv_identify *card_identity(const struct card_admin *admin)
{
	return &admin->identity;
}

int card_identify(struct card_admin *admin, struct speckv_identify *out)
{
	struct speckv_cmd_data command = { .opcode = SPECKV_ADMIN_IDENTIFY };
	int rc = card_admin_call(admin, &command, NULL, 0, out, sizeof(*out), 0, NULL);

	if (!rc && out->version != 0)
		rc = fail(admin->ctx, -EPROTONOSUPPORT,
			"%s: unsupported version %u of the identify data", admin->name,
			out->version);
	return rc;
}

int card_link(struct card_admin *admin, struct transport_link *out)
{
	int rc = card_admin_usable(admin);

	if (rc)
		return rc;
	rc = transport_link(admin->transport, out);
	return rc ? fail(admin->ctx, rc, "%s: cannot read its configuration space: %s", admin->name,
			    strerror(-rc))
		  : 0;
}

struct speckv_ctx *card_ctx(const struct card_admin *admin)
{
	return admin->ctx;
}

const char *card_name(const struct card_admin *admin)
{
	return admin->name;
}

/* ---- logs ----------------------------------------------------------------------------------- */

int card_log(struct card_admin *admin, unsigned int log, unsigned int pool, uint64_t after,
	card_log_cb cb, void *arg)
{
	bool sequences = log == SPECKV_LOG_ERRORS || log == SPECKV_LOG_EVENTS;
	/* not the arena, which the card may change during the read */
	uint8_t *page = malloc(CARD_DATA_BYTES);
	uint32_t least = speckv_log_entry_bytes(log);
	uint64_t end = UINT64_MAX;
	int rc = page ? 0 : fail(admin->ctx, -ENOMEM, "out of memory");

	while (!rc && after < end) {
		struct speckv_cmd_log command = { .opcode = SPECKV_ADMIN_GET_LOG,
			.log = (uint16_t)log,
			.pool = (uint16_t)pool,
			.after = after };
		struct speckv_log_header header;

		rc = card_admin_call(admin, &command, NULL, 0, page, CARD_DATA_BYTES, 0, NULL);
		if (rc)
			break;
		memcpy(&header, page, sizeof(header));
		if (!header.entries)
			break;
		if (!least || header.entry_bytes < least ||
			header.entries > (CARD_DATA_BYTES - sizeof(header)) / header.entry_bytes) {
			rc = fail(admin->ctx, -EBADMSG, "%s: malformed log page", admin->name);
			break;
		}
		if (end == UINT64_MAX)
			end = header.last; /* entries added meanwhile are left to the next call */
		for (uint32_t i = 0; !rc && i < header.entries; i++) {
			const uint8_t *entry =
				page + sizeof(header) + (size_t)i * header.entry_bytes;
			uint64_t sequence = after + 1;

			if (sequences)
				memcpy(&sequence, entry, sizeof(sequence));
			if (sequence <= after || sequence > end) {
				/* sequence numbers must advance: the loop has to end */
				after = end;
				break;
			}
			after = sequence;
			rc = cb(&header, entry, arg);
		}
	}
	free(page);
	return rc;
}
