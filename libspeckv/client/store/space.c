// SPDX-License-Identifier: MIT
/* Capacity of a medium, and NUMA binding. */
#include <linux/mempolicy.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

static bool nearest_statvfs(const char *path, struct statvfs *vfs)
{
	char folder[SPECKV_PATH_BYTES];

	snprintf(folder, sizeof(folder), "%s", path);
	while (statvfs(folder, vfs) != 0) {
		char *slash = strrchr(folder, '/');

		if (!slash)
			return false;
		if (slash == folder) {
			slash[1] = 0;
			return statvfs(folder, vfs) == 0;
		}
		*slash = 0;
	}
	return true;
}

static uint64_t meminfo(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	char line[256];
	unsigned long long kib = 0;

	while (file && fgets(line, sizeof(line), file)) {
		char *at = strstr(line, key);

		if (at && sscanf(at + strlen(key), ": %llu", &kib) == 1)
			break;
		kib = 0;
	}
	if (file)
		fclose(file);
	return (uint64_t)kib << 10;
}

static uint64_t node_memory(int node, const char *key)
{
	char path[96];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return meminfo(path, key);
}

uint64_t medium_available(const struct medium *medium)
{
	struct statvfs vfs;
	uint64_t room, memory;

	if (medium->node)
		return medium->node_bytes;
	if (!nearest_statvfs(medium->path, &vfs))
		return 0;
	room = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	if (medium->runtime) { /* memory-backed: the file system's limit may exceed free memory */
		memory = medium->numa_node >= 0 ? node_memory(medium->numa_node, "MemFree")
						: meminfo("/proc/meminfo", "MemAvailable");
		memory -= memory / 16; /* reserve 1/16 for the rest of the machine */
		room = room < memory ? room : memory;
	}
	return room;
}

uint64_t medium_total(const struct medium *medium)
{
	struct statvfs vfs;
	uint64_t total, memory;

	if (medium->node)
		return medium->node_bytes;
	if (!nearest_statvfs(medium->path, &vfs))
		return 0;
	total = (uint64_t)vfs.f_blocks * vfs.f_frsize;
	if (medium->runtime) {
		memory = medium->numa_node >= 0 ? node_memory(medium->numa_node, "MemTotal")
						: meminfo("/proc/meminfo", "MemTotal");
		total = total < memory ? total : memory;
	}
	return total;
}

uint64_t medium_inodes(const struct medium *medium)
{
	struct statvfs vfs;

	return medium->node || !nearest_statvfs(medium->path, &vfs) || !vfs.f_files ? UINT64_MAX
										    : vfs.f_favail;
}

bool medium_read_only(const struct medium *medium)
{
	struct statvfs vfs;

	return !medium->node && nearest_statvfs(medium->path, &vfs) && vfs.f_flag & ST_RDONLY;
}

int file_size_check(struct speckv_ctx *ctx, const char *path, uint64_t bytes, const char *else_do)
{
	char want[32], have[32];
	uint64_t most;

	if (file_size_allowed(bytes, &most))
		return 0;
	return fail(ctx, -EFBIG,
		"%s needs a file of %s, and the limit of this process is %s: raise it ('ulimit -f')%s",
		path, human(want, bytes), human(have, most), else_do);
}

int medium_bind(int numa_node, void *address, uint64_t bytes)
{
	unsigned long mask[1024 / (8 * sizeof(long))] = { 0 };

	if (numa_node < 0)
		return 0;
	mask[numa_node / (8 * sizeof(long))] = 1ul << (numa_node % (8 * sizeof(long)));
	return syscall(SYS_mbind, address, bytes, MPOL_BIND, mask, 1024ul, 0ul) == 0 ? 0 : -errno;
}
