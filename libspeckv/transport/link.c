// SPDX-License-Identifier: MIT
/*
 * The link of a PCI function, from its PCI Express capability (PCIe 5.0, 7.5.3). The list is not
 * trusted.
 */
#include <string.h>

#include "transport.h"

enum {
	FIRST = 0x34,
	EXPRESS = 0x10,
	LINK_CAPABILITIES = 0x0c,
	LINK_STATUS = 0x12,
	HEADER_BYTES = 0x40,
	MOST = 48
};

static uint32_t speed_of(uint32_t code)
{
	static const uint32_t speeds[] = { 0, 2500, 5000, 8000, 16000, 32000, 64000 };

	return code < sizeof(speeds) / sizeof(speeds[0]) ? speeds[code] : 0;
}

int transport_link(struct transport *t, struct transport_link *out)
{
	uint8_t at = 0, entry[2];
	uint32_t capabilities;
	uint16_t status;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = t->ops->read_config(t, FIRST, &at, sizeof(at));
	for (unsigned int n = 0; !rc && n < MOST && at >= HEADER_BYTES; n++) {
		/* bounded: the list may be circular */
		at &= 0xfc;
		rc = t->ops->read_config(t, at, entry, sizeof(entry));
		if (rc || entry[0] != EXPRESS) {
			at = entry[1];
			continue;
		}
		rc = t->ops->read_config(t, at + LINK_CAPABILITIES, &capabilities,
			sizeof(capabilities));
		if (!rc)
			rc = t->ops->read_config(t, at + LINK_STATUS, &status, sizeof(status));
		if (!rc)
			*out = (struct transport_link){ .speed = speed_of(status & 0xf),
				.lanes = status >> 4 & 0x3f,
				.speed_most = speed_of(capabilities & 0xf),
				.lanes_most = capabilities >> 4 & 0x3f };
		break;
	}
	return rc;
}
