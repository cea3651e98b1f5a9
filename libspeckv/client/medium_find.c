// SPDX-License-Identifier: MIT
/* The devices of a runtime folder: its own media, emulated cards, and runtime_dir/media/NAME -> path for media that lie elsewhere. */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

static void link_name(const struct speckv_ctx *ctx, const struct medium *medium, char out[SPECKV_PATH_BYTES])
{
	uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a: only a file name */

	for (const char *c = medium->path; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
	snprintf(out, SPECKV_PATH_BYTES, "%.*s/media/%016llx", SPECKV_PATH_BYTES - 64, ctx->runtime_dir, (unsigned long long)hash);
}

int medium_register(struct speckv_ctx *ctx, const struct medium *medium)
{
	char path[SPECKV_PATH_BYTES];

	if (medium->runtime)
		return 0;
	if (mkdir(ctx->runtime_dir, 0755) != 0 && errno != EEXIST)
		return -errno;
	snprintf(path, sizeof(path), "%.*s/media", SPECKV_PATH_BYTES - 16, ctx->runtime_dir);
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return -errno;
	link_name(ctx, medium, path);
	return symlink(medium->path, path) == 0 || errno == EEXIST ? 0 : -errno;
}

void medium_unregister(struct speckv_ctx *ctx, const struct medium *medium)
{
	char path[SPECKV_PATH_BYTES];

	link_name(ctx, medium, path);
	unlink(path);
}

static int tell(struct speckv_ctx *ctx, const char *name, speckv_device_cb cb, void *arg)
{
	struct speckv_device_info info;
	struct speckv_device *dev;
	struct medium medium;

	if (medium_parse(ctx, name, &medium) || medium_probe(ctx, &medium, &info) || info.state == SPECKV_MEDIUM_ABSENT)
		return 0;
	if (info.state == SPECKV_MEDIUM_READY && speckv_device_open(ctx, name, 0, &dev) == 0) {
		speckv_device_info(dev, &info);
		speckv_device_close(dev);
	}
	return cb(&info, arg);
}

/* The device name of an entry of a folder; false where it is none. */
typedef bool (*namer)(const struct speckv_ctx *ctx, const char *entry, char name[SPECKV_PATH_BYTES + 8]);

static bool name_emulated(const struct speckv_ctx *ctx, const char *entry, char name[SPECKV_PATH_BYTES + 8])
{
	snprintf(name, SPECKV_PATH_BYTES + 8, "emu:%s", entry);
	return name_ok(entry);
}

static bool name_runtime(const struct speckv_ctx *ctx, const char *entry, char name[SPECKV_PATH_BYTES + 8])
{
	unsigned int node;
	char tail;

	snprintf(name, SPECKV_PATH_BYTES + 8, "host:%s", entry);
	return strcmp(entry, "DRAM") == 0 || sscanf(entry, "numa%u%c", &node, &tail) == 1;
}

static bool name_linked(const struct speckv_ctx *ctx, const char *entry, char name[SPECKV_PATH_BYTES + 8])
{
	char path[SPECKV_PATH_BYTES], target[SPECKV_PATH_BYTES];
	ssize_t got;

	snprintf(path, sizeof(path), "%.*s/media/%.20s", SPECKV_PATH_BYTES - 64, ctx->runtime_dir, entry);
	got = readlink(path, target, sizeof(target) - 1);
	target[got > 0 ? got : 0] = 0;
	snprintf(name, SPECKV_PATH_BYTES + 8, "host:%s", target);
	return got > 0;
}

/* Those of runtime_dir/`folder`, until the callback has had enough. */
static int each(struct speckv_ctx *ctx, const char *folder, namer name_of, speckv_device_cb cb, void *arg)
{
	char path[SPECKV_PATH_BYTES], name[SPECKV_PATH_BYTES + 8];
	struct dirent **list = NULL;
	int n, rc = 0;

	snprintf(path, sizeof(path), "%.*s/%s", SPECKV_PATH_BYTES - 16, ctx->runtime_dir, folder);
	n = scandir(path, &list, NULL, versionsort);
	for (int i = 0; i < n; i++) {
		if (!rc && name_of(ctx, list[i]->d_name, name))
			rc = tell(ctx, name, cb, arg);
		free(list[i]);
	}
	free(list);
	return rc;
}

int speckv_device_foreach(struct speckv_ctx *ctx, speckv_device_cb cb, void *arg)
{
	int rc = each(ctx, "emu", name_emulated, cb, arg);

	if (!rc)
		rc = each(ctx, "", name_runtime, cb, arg);
	return rc ? rc : each(ctx, "media", name_linked, cb, arg);
}

int speckv_device_probe(struct speckv_ctx *ctx, const char *name, struct speckv_device_info *info)
{
	struct medium medium;
	int rc;

	if (!ctx || !info)
		return -EINVAL;
	rc = medium_parse(ctx, name, &medium);
	return rc ? rc : medium_probe(ctx, &medium, info);
}
