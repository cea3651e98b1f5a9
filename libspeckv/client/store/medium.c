// SPDX-License-Identifier: MIT
/*
 * Names of media, and their folders and files. Their contents: medium_probe.c, medium_make.c.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "store.h"

static bool read_u64(const char *path, uint64_t *value)
{
	FILE *file = fopen(path, "re");
	unsigned long long v = 0;
	bool ok = file && fscanf(file, "%llu", &v) == 1;

	if (file)
		fclose(file);
	*value = v;
	return ok;
}

/* A device node's size and NUMA node, from sysfs. */
static int node_size(struct speckv_ctx *ctx, struct medium *medium, const struct stat *st)
{
	char path[128];
	uint64_t node;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/size", major(st->st_rdev),
		minor(st->st_rdev));
	if (!S_ISCHR(st->st_mode) || !read_u64(path, &medium->node_bytes))
		return fail(ctx, -EOPNOTSUPP,
			"%s is not a devdax node; use a /dev/dax* node, a file, host:DRAM or host:numaN",
			medium->path);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/target_node", major(st->st_rdev),
		minor(st->st_rdev));
	if (read_u64(path, &node) && node <= INT_MAX)
		medium->numa_node = (int)node;
	return 0;
}

int medium_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium)
{
	const char *rest;
	struct stat st;
	unsigned int node;
	char tail;

	memset(medium, 0, sizeof(*medium));
	medium->numa_node = -1;
	if (!name || strncmp(name, "host:", 5) != 0)
		return fail(ctx, -EOPNOTSUPP,
			"%s: this build supports the devices emu:NAME, host:DRAM, host:numaN, host:/path and host:/dev/daxX.Y",
			name ? name : "(null)");
	if (strlen(name) >= sizeof(medium->name))
		return fail(ctx, -EINVAL, "device name longer than %zu bytes",
			sizeof(medium->name) - 1);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return fail(ctx, -EINVAL, "device name holds a control character");
	snprintf(medium->name, sizeof(medium->name), "%s", name);
	rest = name + 5;
	if (strcmp(rest, "DRAM") == 0) {
		medium->runtime = true;
		snprintf(medium->path, sizeof(medium->path), "%.*s/DRAM", SPECKV_PATH_BYTES - 16,
			ctx->runtime_dir);
		return 0;
	}
	if (sscanf(rest, "numa%u%c", &node, &tail) == 1 && node < 1024) {
		char path[96];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", node);
		if (access(path, F_OK) != 0)
			return fail(ctx, -ENODEV,
				"host:numa%u: this machine has no NUMA node %u; 'speckvctl device list' shows what it has",
				node, node);
		medium->runtime = true;
		medium->numa_node = (int)node;
		snprintf(medium->path, sizeof(medium->path), "%.*s/numa%u", SPECKV_PATH_BYTES - 16,
			ctx->runtime_dir, node);
		return 0;
	}
	if (*rest != '/')
		return fail(ctx, -EINVAL,
			"%s: 'host:' must be followed by DRAM, numaN, or an absolute path", name);
	if (rest[strlen(rest) - 1] == '/')
		return fail(ctx, -EINVAL,
			"%s: names a folder; a medium is a file or a /dev/dax* node", name);
	snprintf(medium->path, sizeof(medium->path), "%s", rest);
	/* file type only; owner and mode are checked at each open */
	if (lstat(rest, &st) != 0)
		return errno == EACCES
			? fail(ctx, -EACCES,
				  "%s: no permission to access it; run as a user with search permission on its folder",
				  name)
			: strncmp(rest, "/dev/", 5) == 0 && strncmp(rest, "/dev/shm/", 9) != 0
			? fail(ctx, -ENODEV,
				  "%s: no such node; 'speckvctl device list' shows what this machine has",
				  name)
			: 0;
	if (S_ISREG(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return fail(ctx, -EOPNOTSUPP, "%s is a folder; name a file in it", rest);
	if (S_ISLNK(st.st_mode))
		return 0;
	medium->node = true;
	return node_size(ctx, medium, &st);
}

int medium_folder(struct speckv_ctx *ctx, const struct medium *medium, unsigned int flags,
	struct folder *out)
{
	return medium->runtime ? runtime_folder(ctx, medium->backend->folder, flags, out)
			       : folder_holding(ctx, medium->path, out);
}

int medium_open(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	int flags)
{
	/* a medium of fixed size may be writable by its group, as its pools are */
	struct file_rule rule = { .owner = NO_OWNER,
		.writers = medium->runtime ? 0 : S_IWGRP,
		.group = !medium->runtime,
		.node = medium->node };

	return file_open(ctx, in, medium->path, flags, 0, &rule);
}

int medium_pools(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	unsigned int flags, struct folder *out)
{
	char path[SPECKV_PATH_BYTES];

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	if (snprintf(path, sizeof(path), "%s.pools", medium->path) >= (int)sizeof(path))
		return fail(ctx, -ENAMETOOLONG, "%s: path too long", medium->path);
	return folder_enter(ctx, in, path, flags, out);
}

int medium_pool_path(const struct medium *medium, const char *pool, char path[SPECKV_PATH_BYTES])
{
	return snprintf(path, SPECKV_PATH_BYTES, "%s.pools/%s", medium->path, pool) <
			SPECKV_PATH_BYTES
		? 0
		: -ENAMETOOLONG;
}
