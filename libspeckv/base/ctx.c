// SPDX-License-Identifier: MIT
/* Contexts, error texts, clocks. */
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"

#define RUNTIME_DIR "/dev/shm/speckv"

/* Per thread, like errno, with the context it belongs to. */
static _Thread_local struct {
	const struct speckv_ctx *ctx;
	char text[512];
} last_error;

void fail_text(struct speckv_ctx *ctx, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	last_error.ctx = ctx;
	vsnprintf(last_error.text, sizeof(last_error.text), format, args);
	va_end(args);
}

const char *speckv_strerror(const struct speckv_ctx *ctx)
{
	return ctx && last_error.ctx == ctx ? last_error.text : "";
}

const char *speckv_version(void)
{
	return SPECKV_VERSION;
}

int speckv_ctx_create(struct speckv_ctx **out)
{
	const char *dir = getenv("SPECKV_RUNTIME_DIR");
	struct speckv_ctx *ctx;
	struct stat st;

	if (!out)
		return -EINVAL;
	*out = NULL;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	if (dir && *dir) {
		if (*dir != '/' || strlen(dir) > SPECKV_PATH_BYTES / 2) {
			free(ctx);
			return -EINVAL;
		}
		snprintf(ctx->runtime_dir, sizeof(ctx->runtime_dir), "%s", dir);
		ctx->runtime_named = true;
	} else if (geteuid() == 0 ||
		(lstat(RUNTIME_DIR, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == 0)) {
		snprintf(ctx->runtime_dir, sizeof(ctx->runtime_dir), "%s", RUNTIME_DIR);
	} else {
		snprintf(ctx->runtime_dir, sizeof(ctx->runtime_dir), "%s-%u", RUNTIME_DIR,
			(unsigned int)geteuid());
	}
	*out = ctx;
	return 0;
}

void speckv_ctx_destroy(struct speckv_ctx *ctx)
{
	if (last_error.ctx == ctx)
		last_error.ctx = NULL;
	free(ctx);
}

const char *speckv_ctx_runtime_dir(const struct speckv_ctx *ctx)
{
	return ctx->runtime_dir;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int random_bytes(void *buffer, size_t bytes)
{
	return getrandom(buffer, bytes, 0) == (ssize_t)bytes ? 0 : -EIO;
}

static size_t read_small(const char *path, char *text, size_t bytes)
{
	FILE *file = fopen(path, "re");
	size_t got = 0;

	if (file) {
		got = fread(text, 1, bytes - 1, file);
		fclose(file);
	}
	text[got] = 0;
	return got;
}

void own_command(char command[64])
{
	const char *name = program_invocation_short_name; /* of a script: its interpreter */
	char comm[32];
	size_t got = read_small("/proc/self/comm", comm, sizeof(comm));

	if (got && comm[got - 1] == '\n')
		comm[--got] = 0;
	if (!name || !*name)
		name = "?";
	/* the kernel truncates comm to 15 bytes */
	if (got && !(got == 15 && strncmp(name, comm, got) == 0))
		name = comm;
	memset(command, 0, 64);
	snprintf(command, 64, "%.63s", name);
	for (char *c = command; *c; c++) /* no control bytes for terminals */
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
}

void boot_id(uint8_t id[16])
{
	char text[64];
	unsigned int n = 0;

	memset(id, 0, 16);
	read_small("/proc/sys/kernel/random/boot_id", text, sizeof(text));
	for (const char *c = text; *c && n < 32; c++) {
		unsigned int digit;

		if (*c >= '0' && *c <= '9')
			digit = (unsigned int)(*c - '0');
		else if (*c >= 'a' && *c <= 'f')
			digit = (unsigned int)(*c - 'a' + 10);
		else
			continue;
		id[n / 2] = (uint8_t)(id[n / 2] << 4 | digit);
		n++;
	}
}

bool name_ok(const char *name)
{
	size_t length = strnlen(name, SPECKV_NAME_BYTES);

	if (!length || length >= SPECKV_NAME_BYTES || name[0] == '.' || name[0] == '-')
		return false;
	for (const char *c = name; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			    (*c >= '0' && *c <= '9') || strchr("._-", *c)))
			return false;
	return true;
}

const char *human(char buffer[32], uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	unsigned int i = 0;
	double value = (double)bytes;

	for (; value >= 1024 && i < 5; i++)
		value /= 1024;
	snprintf(buffer, 32,
		i && value < 100 && value != (double)(uint64_t)value ? "%.1f %s" : "%.0f %s", value,
		unit[i]);
	return buffer;
}
