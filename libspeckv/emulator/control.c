// SPDX-License-Identifier: MIT
/*
 * The emulator's own commands, a line each: `status`, `stop`, `temperature MILLICELSIUS`, `inject FAULT POOL VALUE COUNT`. The answer is a line of
 * JSON: {"error": 0, ...}, or {"error": errno, "message": "..."}.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
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
};

static void failed(char *answer, unsigned int bytes, int error, const char *message)
{
	snprintf(answer, bytes, "{\"error\": %d, \"message\": \"%s\"}\n", error, message);
}

static void status(struct emulator *e, char *answer, unsigned int bytes)
{
	unsigned int admin = 0, io = 0;

	for (unsigned int i = 0; i < EMU_FUNCTIONS; i++)
		if (e->functions[i])
			*(e->functions[i]->admin ? &admin : &io) += 1;
	snprintf(answer, bytes,
		 "{\"error\": 0, \"name\": \"%s\", \"pid\": %d, \"memory_bytes\": %" PRIu64 ", \"engine\": %s, \"running_slot\": %u, "
		 "\"admin_connections\": %u, \"io_connections\": %u, \"started_ns\": %" PRIu64 "}\n",
		 e->name, (int)getpid(), e->config.memory_bytes, speckv_card_has_engine(e->card) ? "true" : "false", speckv_card_running_slot(e->card), admin,
		 io, e->started_ns);
}

static void inject(struct emulator *e, const char *arguments, char *answer, unsigned int bytes)
{
	char name[32], tail;
	unsigned int pool;
	uint64_t value;
	uint32_t count;

	if (sscanf(arguments, "%31s %u %" SCNu64 " %" SCNu32 " %c", name, &pool, &value, &count, &tail) != 4) {
		failed(answer, bytes, EINVAL, "inject FAULT POOL VALUE COUNT");
		return;
	}
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (strcmp(faults[i].name, name) == 0) {
			int rc = speckv_card_inject(e->card, faults[i].fault, pool, value, count);

			if (rc)
				failed(answer, bytes, -rc, "the card has no such pool, page or cause");
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
		speckv_card_set_temperature(e->card, millicelsius);
		snprintf(answer, bytes, "{\"error\": 0}\n");
	} else if (strncmp(line, "inject ", 7) == 0) {
		inject(e, line + 7, answer, bytes);
	} else {
		failed(answer, bytes, EINVAL, "commands: status, stop, temperature, inject");
	}
}
