/* SPDX-License-Identifier: MIT */
/*
 * vfio-user 0.9 on the wire, the part in use; little-endian. Source: the protocol's specification
 * in libvfio-user. For this folder and emulator/.
 */
#ifndef SPECKV_TRANSPORT_VFIO_USER_WIRE_H
#define SPECKV_TRANSPORT_VFIO_USER_WIRE_H

#include <stdint.h>

enum vfu_command {
	VFU_VERSION = 1, /* two 16-bit numbers, then JSON */
	VFU_DMA_MAP,
	VFU_DMA_UNMAP,
	VFU_GET_INFO,
	VFU_GET_REGION,
	VFU_GET_REGION_FDS,
	VFU_GET_IRQ,
	VFU_SET_IRQS,
	VFU_REGION_READ,
	VFU_REGION_WRITE,
	VFU_DMA_READ,
	VFU_DMA_WRITE,
	VFU_RESET,
};

/* Of vfu_header.flags. */
#define VFU_TYPE_MASK 0xfu
#define VFU_REPLY 1u
#define VFU_NO_REPLY 0x10u
#define VFU_ERROR 0x20u

#define VFU_CONFIG_REGION 7 /* PCI configuration space */

struct vfu_header {
	uint16_t id, command;
	uint32_t bytes, flags, error; /* bytes: of the whole message; error: an errno */
};
_Static_assert(sizeof(struct vfu_header) == 16, "vfio-user header");

/* VFU_REGION_READ, VFU_REGION_WRITE; followed by the data. */
struct vfu_access {
	uint64_t offset;
	uint32_t region, bytes;
};

/* VFU_DMA_MAP. Flags: 1 the device may read it, 2 it may write it. */
struct vfu_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, bytes;
};

/* VFU_DMA_UNMAP, request and reply. */
struct vfu_dma_unmap {
	uint32_t argsz, flags;
	uint64_t address, bytes;
};

/* Reply to VFU_GET_INFO. Flags: 1 it can be reset, 2 it is a PCI device. */
struct vfu_device_info {
	uint32_t argsz, flags, regions, irqs;
};

/* VFU_GET_REGION, request and reply. */
struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t bytes, offset;
};

/* Reply to VFU_GET_REGION for a region of which one part can be mapped. */
struct vfu_region_part {
	struct vfu_region_info region;
	uint16_t cap_id, cap_version; /* VFIO_REGION_INFO_CAP_SPARSE_MMAP */
	uint32_t cap_next, areas, reserved;
	uint64_t area_offset, area_bytes;
};

/* VFU_GET_IRQ, request and reply. Flags: 1 it signals an eventfd. */
struct vfu_irq_info {
	uint32_t argsz, flags, index, count;
};

/*
 * VFU_SET_IRQS; descriptors of eventfds come with the message. Flags: 1 no data, 4 eventfds; 0x20
 * triggers.
 */
struct vfu_irq_set {
	uint32_t argsz, flags, index, start, count;
};

#endif
