/* SPDX-License-Identifier: MIT */
/*
 * vfio-user 0.9 on the wire, the part in use; little-endian. Source: the protocol's specification
 * in libvfio-user. For this folder and emulator/.
 */
#ifndef SPECKV_TRANSPORT_VFIO_USER_WIRE_H
#define SPECKV_TRANSPORT_VFIO_USER_WIRE_H

#include <stdint.h>

enum vfu_command {
	VFU_VERSION = 1,
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

/* First bytes of VFU_GET_REGION, request and reply. */
struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t bytes, offset;
};

#endif
