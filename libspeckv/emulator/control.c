// SPDX-License-Identifier: MIT
/*
 * The emulator's own commands, a line each: `status`, `stop`, `temperature MILLICELSIUS`, `inject
 * FAULT POOL VALUE COUNT`. The answer is a line of JSON: {"error": 0, ...}, or {"error": errno,
 * "message": "..."}. Faults: those of card/faults.c; `temperature` (value: millidegrees Celsius);
 * and `power-cut`: the process ends, as killed, when `value` more bytes of flash were written or
 * erased.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "emulator.h"

static const struct {
	const char *name;
	enum speckv_card_fault fault;
} faults[] = {
	{ "lost-interrupt", SPECKV_CARD_FAULT_LOST_INTERRUPT },
	{ "duplicate-interrupt", SPECKV_CARD_FAULT_DUPLICATE_INTERRUPT },
	{ "poison", SPECKV_CARD_FAULT_POISON },
	{ "corrected-error", SPECKV_CARD_FAULT_CORRECTED },
	{ "torn-program", SPECKV_CARD_FAULT_TORN_PROGRAM },
	{ "torn-erase", SPECKV_CARD_FAULT_TORN_ERASE },
	{ "slow", SPECKV_CARD_FAULT_SLOW },
	{ "stuck", SPECKV_CARD_FAULT_STUCK },
	{ "unstick", SPECKV_CARD_FAULT_UNSTICK },
	{ "bad-boot", SPECKV_CARD_FAULT_BAD_BOOT },
	{ "fatal", SPECKV_CARD_FAULT_FATAL },
	{ "lost-completion", SPECKV_CARD_FAULT_LOST_COMPLETION },
};

static void failed(char *answer, unsigned int bytes, int error, const char *message)
{
	snprintf(answer, bytes, "{\"error\": %d, \"message\": \"%s\"}\n", error, message);
}

static unsigned int append(char *answer, unsigned int bytes, unsigned int at, const char *format,
	...)
{
	va_list list;
	int n;

	va_start(list, format);
	n = at < bytes ? vsnprintf(answer + at, bytes - at, format, list) : 0;
	va_end(list);
	return n > 0 ? at + (unsigned int)n : at;
}

/* List the connections, with the peer's credentials at the time of connect(). */
static void status(struct emulator *e, char *answer, unsigned int bytes)
{
	const char *separator = "";
	unsigned int at;

	at = append(answer, bytes, 0,
		"{\"error\": 0, \"name\": \"%s\", \"pid\": %d, \"memory_bytes\": %" PRIu64
		", \"engine\": %s, \"running_slot\": %u, \"started_ns\": %" PRIu64
		", \"connections\": [",
		e->name, (int)getpid(), e->config.memory_bytes,
		e->engine->ops->has_engine(e->engine) ? "true" : "false",
		e->engine->ops->running_slot(e->engine), e->started_ns);
	for (unsigned int i = 0; i < EMU_FUNCTIONS; i++) {
		/* connections before their greeting have no function */
		struct emu_function *f = e->functions[i];
		struct ucred peer = { .pid = 0, .uid = (uid_t)-1 };
		socklen_t length = sizeof(peer);

		if (!f)
			continue;
		getsockopt(vu_fd(f->connection), SOL_SOCKET, SO_PEERCRED, &peer, &length);
		at = append(answer, bytes, at,
			"%s{\"function\": %d, \"admin\": %s, \"pid\": %d, \"uid\": %u}", separator,
			f->number, f->admin ? "true" : "false", (int)peer.pid,
			(unsigned int)peer.uid);
		separator = ", ";
	}
	at = append(answer, bytes, at, "]}\n");
	if (at >= bytes)
		failed(answer, bytes, ENOSPC, "the answer does not fit");
}

static void set_temperature(struct emulator *e, int64_t millicelsius, char *answer,
	unsigned int bytes)
{
	if (millicelsius < -273150 || millicelsius > 1000000) {
		failed(answer, bytes, EINVAL,
			"a temperature in millidegrees Celsius, from -273150 to 1000000");
		return;
	}
	e->engine->ops->set_temperature(e->engine, (int32_t)millicelsius);
	snprintf(answer, bytes, "{\"error\": 0}\n");
}

static void inject(struct emulator *e, const char *arguments, char *answer, unsigned int bytes)
{
	char name[32], tail;
	unsigned int pool;
	uint64_t value;
	uint32_t count;

	if (sscanf(arguments, "%31s %u %" SCNu64 " %" SCNu32 " %c", name, &pool, &value, &count,
		    &tail) != 4) {
		failed(answer, bytes, EINVAL, "inject FAULT POOL VALUE COUNT");
		return;
	}
	if (strcmp(name, "temperature") == 0) {
		set_temperature(e, (int64_t)value, answer, bytes);
		return;
	}
	if (strcmp(name, "power-cut") == 0) {
		e->cut = true;
		e->cut_bytes = value;
		snprintf(answer, bytes, "{\"error\": 0}\n");
		return;
	}
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (strcmp(faults[i].name, name) == 0) {
			int rc = e->engine->ops->inject(e->engine, faults[i].fault, pool, value,
				count);

			if (rc)
				failed(answer, bytes, -rc,
					rc == -ENOENT
						? "the card has no such pool or page"
						: "a fatal error has a cause from 1 to 6: memory, DMA, thermal, internal, admin queue, admin doorbell");
			else
				snprintf(answer, bytes, "{\"error\": 0}\n");
			return;
		}
	failed(answer, bytes, EINVAL, "no such fault");
}

void emu_control(struct emulator *e, const char *line, char *answer, unsigned int bytes)
{
	int millicelsius;
	char tail;

	if (strcmp(line, "status") == 0) {
		status(e, answer, bytes);
	} else if (strcmp(line, "stop") == 0) {
		e->stop = true;
		snprintf(answer, bytes, "{\"error\": 0}\n");
	} else if (sscanf(line, "temperature %d %c", &millicelsius, &tail) == 1) {
		set_temperature(e, millicelsius, answer, bytes);
	} else if (strncmp(line, "inject ", 7) == 0) {
		inject(e, line + 7, answer, bytes);
	} else {
		failed(answer, bytes, EINVAL, "commands: status, stop, temperature, inject");
	}
}
