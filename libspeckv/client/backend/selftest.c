// SPDX-License-Identifier: MIT
/* Self-test of the memory behind mapped pools. Non-destructive. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"
#include "base/extend.h"

#define SCRATCH (32ull << 20)

int selftest_step(speckv_selftest_cb step, void *arg, const char *name, uint64_t start, int result,
	const char *detail)
{
	struct speckv_selftest_step done = { .result = result, .elapsed_ns = clock_ns() - start };

	snprintf(done.name, sizeof(done.name), "%s", name);
	snprintf(done.detail, sizeof(done.detail), "%s", detail);
	return step(&done, arg);
}

/*
 * Write and read scratch memory of the medium's kind: a memfd, or an unlinked file beside the
 * medium. A medium of fixed size is not tested.
 */
void mapped_selftest(struct speckv_device *dev, speckv_selftest_cb step, void *arg)
{
	uint64_t start = clock_ns(), bytes = SCRATCH, elapsed;
	char name[64], detail[96], a[32], b[32];
	uint32_t crc;
	uint8_t *map;
	int fd, rc = 0;

	if (dev->single_inode) {
		selftest_step(step, arg, "memory", start, 0,
			"skipped: this medium has no space known to be free");
		return;
	}
	if (dev->medium.runtime) {
		fd = memfd_create("speckv-selftest", MFD_CLOEXEC);
	} else {
		snprintf(name, sizeof(name), ".speckv.%d.selftest", (int)gettid());
		fd = openat(dev->folder.fd, name,
			O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0)
			unlinkat(dev->folder.fd, name, 0);
	}
	if (fd < 0 || file_extend(fd, bytes) != 0) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		selftest_step(step, arg, "memory", start, rc,
			"cannot make a scratch file beside the medium");
		return;
	}
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED) {
		selftest_step(step, arg, "memory", start, -errno, "cannot map a scratch file");
		return;
	}
	rc = medium_bind(dev->medium.numa_node, map, bytes);
	for (uint64_t i = 0; i < bytes / 8; i++)
		((uint64_t *)map)[i] = i * 0x9e3779b97f4a7c15ull;
	crc = speckv_crc32c(0, map, bytes);
	for (uint64_t i = 0; !rc && i < bytes / 8; i++)
		if (((uint64_t *)map)[i] != i * 0x9e3779b97f4a7c15ull)
			rc = -EIO;
	if (!rc && crc != speckv_crc32c(0, map, bytes))
		rc = -EIO;
	munmap(map, bytes);
	elapsed = clock_ns() - start;
	snprintf(detail, sizeof(detail), "%s written and read twice, %s/s overall", human(a, bytes),
		human(b, (uint64_t)(4e9 * (double)bytes / (double)(elapsed ? elapsed : 1))));
	selftest_step(step, arg, "memory", start, rc, detail);
}
