// SPDX-License-Identifier: MIT
/* Requests of a vfio-user peer: DMA mappings, regions, interrupts. */
#include "vfio_user_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/*
 * Map only memory that its owner cannot truncate, and no part of a huge page, which is mapped as a
 * whole. Other memory is accessed by message.
 */
static bool can_be_mapped(int fd, uint64_t offset, uint64_t bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct statfs in;
	struct stat st;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) != 0 || fstatfs(fd, &in) != 0)
		return false;
	if (in.f_type == HUGETLBFS_MAGIC && (offset | bytes) & ((uint64_t)in.f_bsize - 1))
		return false;
	return st.st_size >= 0 && offset <= (uint64_t)st.st_size &&
		bytes <= (uint64_t)st.st_size - offset;
}

struct vu_limits vu_limits = { UINT64_MAX, UINT64_MAX, UINT64_MAX };

/*
 * Limit mapped memory per connection and per user. Each connection may map VU_SMALL_BYTES, whatever
 * the user's others hold.
 */
static bool within(const struct vu_connection *c, uint64_t bytes)
{
	if (bytes <= VU_SMALL_BYTES && c->mapped_bytes <= VU_SMALL_BYTES - bytes)
		return true;
	return bytes <= vu_limits.connection_mapped_bytes &&
		c->mapped_bytes <= vu_limits.connection_mapped_bytes - bytes &&
		bytes <= vu_limits.user_mapped_bytes &&
		c->user->mapped_bytes <= vu_limits.user_mapped_bytes - bytes;
}

static int dma_map(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vfu_dma_map map;
	struct mapping *m;

	if (bytes < sizeof(map))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&map, body, sizeof(map));
	if (map.argsz < sizeof(map) || map.flags & ~3u || !map.flags || !map.bytes ||
		map.address + map.bytes - 1 < map.address || map.bytes > 1ull << 46 ||
		map.offset > 1ull << 62)
		return vu_refuse(c, h, -EINVAL);
	if (c->map_count == VU_DMA_MAPS)
		return vu_refuse(c, h, -ENOSPC);
	for (unsigned int i = 0; i < c->map_count; i++)
		if (map.address <= c->maps[i].address + (c->maps[i].bytes - 1) &&
			c->maps[i].address <= map.address + (map.bytes - 1))
			return vu_refuse(c, h, -EEXIST);
	m = &c->maps[c->map_count];
	*m = (struct mapping){ .address = map.address,
		.bytes = map.bytes,
		.read = map.flags & 1,
		.write = map.flags & 2 };
	if (c->with_fds && can_be_mapped(c->fds[0], map.offset, map.bytes)) {
		if (!within(c, map.bytes))
			return vu_refuse(c, h, -EDQUOT);
		m->memory = mmap(NULL, map.bytes,
			(m->read ? PROT_READ : 0) | (m->write ? PROT_WRITE : 0), MAP_SHARED,
			c->fds[0], (off_t)map.offset);
		if (m->memory == MAP_FAILED)
			return vu_refuse(c, h, -errno);
		if (!guard_add(m->memory, map.bytes, &c->error, false)) {
			/* its pages can still vanish: a hole punched in a hugetlbfs file */
			munmap(m->memory, map.bytes);
			return vu_refuse(c, h, -ENOSPC);
		}
		c->mapped_bytes += map.bytes;
		c->user->mapped_bytes += map.bytes;
	}
	c->map_count++;
	return vu_reply(c, h, NULL, 0);
}

static int dma_unmap(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vfu_dma_unmap unmap;

	if (bytes < sizeof(unmap))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&unmap, body, sizeof(unmap));
	for (unsigned int i = 0; i < c->map_count; i++) {
		struct mapping *m = &c->maps[i];

		if (m->address != unmap.address || m->bytes != unmap.bytes)
			continue;
		c->ops->dma_unmapped(c->device, m->address, m->bytes);
		vu_unmap(c, m);
		return vu_reply(c, h, &unmap, sizeof(unmap));
	}
	return vu_refuse(c, h, -ENOENT);
}

static int get_region(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vu_region region = { .fd = -1 };
	struct vfu_region_part info;
	struct vfu_region_info asked;

	if (bytes < sizeof(asked))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&asked, body, sizeof(asked));
	if (asked.index >= VU_REGIONS)
		return vu_refuse(c, h, -EINVAL);
	memset(&info, 0, sizeof(info));
	c->ops->region_info(c->device, asked.index, &region);
	info.region.argsz = sizeof(info.region);
	info.region.index = asked.index;
	info.region.bytes = region.bytes;
	if (region.bytes)
		info.region.flags = 1u | (region.writable ? 2u : 0) | (region.fd >= 0 ? 4u : 0);
	if (region.fd >= 0 && region.mmap_bytes) { /* only a part may be mapped */
		info.region.flags |= 8u;
		info.region.argsz = sizeof(info);
		if (asked.argsz >= sizeof(info)) {
			info.region.cap_offset = sizeof(info.region);
			info.cap_id = 1;
			info.cap_version = 1;
			info.areas = 1;
			info.area_offset = region.mmap_offset;
			info.area_bytes = region.mmap_bytes;
		}
	}
	return vu_reply_with(c, h, &info,
		info.region.cap_offset ? sizeof(info) : sizeof(info.region), region.fd);
}

static int set_irqs(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vfu_irq_set set;
	unsigned int given_fds;

	if (bytes < sizeof(set))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&set, body, sizeof(set));
	if (set.index >= VU_IRQ_TYPES)
		return vu_refuse(c, h, -EINVAL);
	/* only MSI-X exists, and only its triggers can be set */
	if (set.index != VU_MSIX || !(set.flags & 0x20))
		return set.count ? vu_refuse(c, h, -EINVAL) : vu_reply(c, h, NULL, 0);
	if (set.start > c->vectors || set.count > c->vectors - set.start)
		return vu_refuse(c, h, -EINVAL);
	if (set.flags & 1 && set.count == 0) { /* disable all */
		for (unsigned int i = 0; i < VU_VECTORS; i++)
			if (c->irq[i] >= 0) {
				vu_release(c->irq[i], c->user->uid, false);
				c->irq[i] = -1;
			}
		return vu_reply(c, h, NULL, 0);
	}
	if (set.flags & 1) { /* loopback test: trigger them */
		for (uint32_t i = 0; i < set.count; i++)
			vu_interrupt(c, set.start + i);
		return vu_reply(c, h, NULL, 0);
	}
	given_fds = c->with_fds ? c->fd_count : 0;
	if (!(set.flags & 4) || given_fds > set.count)
		return vu_refuse(c, h, -EINVAL);
	for (uint32_t i = 0; i < set.count; i++) {
		unsigned int vector = set.start + i;
		bool given = i < given_fds;

		/* make it non-blocking, or refuse it */
		if (given && fcntl(c->fds[i], F_SETFL, O_NONBLOCK) != 0)
			return vu_refuse(c, h, -errno);
		if (c->irq[vector] >= 0)
			vu_release(c->irq[vector], c->user->uid, false);
		c->irq[vector] = given ? c->fds[i] : -1;
		if (given)
			c->fds[i] = -1;
	}
	return vu_reply(c, h, NULL, 0);
}

static int region_access(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vu_region region = { .fd = -1 };
	struct vfu_access access;
	uint8_t *answer;
	int rc;

	if (bytes < sizeof(access))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&access, body, sizeof(access));
	if (access.region >= VU_REGIONS || access.bytes > VU_TRANSFER_BYTES ||
		(h->command == VFU_REGION_WRITE && bytes - sizeof(access) < access.bytes))
		return vu_refuse(c, h, -EINVAL);
	c->ops->region_info(c->device, access.region, &region);
	if (access.offset > region.bytes || access.bytes > region.bytes - access.offset)
		return vu_refuse(c, h, -EINVAL);
	if (h->command == VFU_REGION_WRITE) {
		/*
		 * reply first: QEMU answers no DMA while it waits for the reply, and the data is in
		 * the message
		 */
		rc = vu_reply(c, h, &access, sizeof(access));
		if (!rc && access.bytes)
			c->ops->region_write(c->device, access.region, access.offset,
				body + sizeof(access), access.bytes);
		return rc;
	}
	answer = malloc(sizeof(access) + access.bytes);
	if (!answer)
		return vu_refuse(c, h, -ENOMEM);
	memcpy(answer, &access, sizeof(access));
	memset(answer + sizeof(access), 0, access.bytes);
	rc = c->ops->region_read(c->device, access.region, access.offset, answer + sizeof(access),
		access.bytes);
	rc = rc ? vu_refuse(c, h, rc) : vu_reply(c, h, answer, sizeof(access) + access.bytes);
	free(answer);
	return rc;
}

static int version(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	_Static_assert(VU_TRANSFER_BYTES == 4096, "as announced");
	static const char capabilities[] =
		"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":4096,"
		"\"pgsizes\":4096,\"max_dma_maps\":256}}";
	uint8_t answer[4 + sizeof(capabilities)] = { 0 };
	uint16_t major;
	int rc;

	if (bytes < 4 || c->greeted)
		return vu_over(c, -EPROTO);
	memcpy(&major, body, 2);
	if (major != 0) { /* no other version to negotiate */
		vu_refuse(c, h, -EINVAL);
		vu_flush(c);
		return vu_over(c, -EPROTO);
	}
	rc = c->ops->greeted(c->device);
	if (rc) {
		vu_refuse(c, h, rc);
		vu_flush(c);
		return vu_over(c, rc);
	}
	c->greeted = true;
	memcpy(answer + 4, capabilities, sizeof(capabilities));
	return vu_reply(c, h, answer, sizeof(answer));
}

static int get_irq(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct vfu_irq_info info;

	if (bytes < sizeof(info))
		return vu_refuse(c, h, -EINVAL);
	memcpy(&info, body, sizeof(info));
	if (info.index >= VU_IRQ_TYPES)
		return vu_refuse(c, h, -EINVAL);
	info.argsz = sizeof(info);
	info.flags = info.index == VU_MSIX ? 1 : 0;
	info.count = info.index == VU_MSIX ? c->vectors : 0;
	return vu_reply(c, h, &info, sizeof(info));
}

int vu_handle(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	static const struct vfu_device_info info = { sizeof(info), 1 | 2, VU_REGIONS,
		VU_IRQ_TYPES };

	if (!c->greeted && h->command != VFU_VERSION)
		return vu_over(c, -EPROTO);
	switch (h->command) {
	case VFU_VERSION:
		return version(c, h, body, bytes);
	case VFU_DMA_MAP:
		return dma_map(c, h, body, bytes);
	case VFU_DMA_UNMAP:
		return dma_unmap(c, h, body, bytes);
	case VFU_GET_INFO:
		return vu_reply(c, h, &info, sizeof(info));
	case VFU_GET_REGION:
		return get_region(c, h, body, bytes);
	case VFU_GET_IRQ:
		return get_irq(c, h, body, bytes);
	case VFU_SET_IRQS:
		return set_irqs(c, h, body, bytes);
	case VFU_REGION_READ:
	case VFU_REGION_WRITE:
		return region_access(c, h, body, bytes);
	case VFU_RESET: {
		int rc = c->ops->reset(c->device);

		return rc ? vu_refuse(c, h, rc) : vu_reply(c, h, NULL, 0);
	}
	default:
		return vu_refuse(c, h, -EOPNOTSUPP);
	}
}
