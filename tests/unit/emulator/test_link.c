// SPDX-License-Identifier: MIT
/* The link of a function, from configuration spaces of all kinds, and from an emulated card's. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

struct fake {
	struct transport transport;
	uint8_t config[256];
	unsigned int reads;
};

static int read_fake(struct transport *t, uint32_t offset, void *data, uint32_t bytes)
{
	struct fake *f = (struct fake *)t;

	f->reads++;
	if (offset + bytes > sizeof(f->config))
		return -EIO;
	memcpy(data, f->config + offset, bytes);
	return 0;
}

static const struct transport_ops fake_ops = { .read_config = read_fake };

static struct fake blank(void)
{
	return (struct fake){ .transport = { .ops = &fake_ops } };
}

static void express(struct fake *f, uint8_t at, uint8_t next, uint16_t most, uint16_t now)
{
	f->config[at] = 0x10;
	f->config[at + 1] = next;
	memcpy(f->config + at + 0x0c, &most, sizeof(most));
	memcpy(f->config + at + 0x12, &now, sizeof(now));
}

static bool is(const struct transport_link *l, uint32_t speed, uint32_t lanes, uint32_t speed_most,
	uint32_t lanes_most)
{
	return l->speed == speed && l->lanes == lanes && l->speed_most == speed_most &&
		l->lanes_most == lanes_most;
}

static void fakes(void)
{
	struct transport_link link;
	struct fake f = blank();

	/* no capabilities */
	HOLDS(transport_link(&f.transport, &link) == 0 && is(&link, 0, 0, 0, 0));
	f = blank();
	f.config[0x34] = 0x40;
	f.config[0x40] = 0x11; /* MSI-X, and behind it */
	f.config[0x41] = 0x60;
	express(&f, 0x60, 0, 0x105, 0x83); /* could be 32 GT/s on 16 lanes, is 8 GT/s on 8 */
	HOLDS(transport_link(&f.transport, &link) == 0 && is(&link, 8000, 8, 32000, 16));
	express(&f, 0x60, 0, 0x10f, 0x8f); /* speeds of another century */
	HOLDS(transport_link(&f.transport, &link) == 0 && is(&link, 0, 8, 0, 16));
	f = blank();
	f.config[0x34] = 0x40;
	f.config[0x40] = 0x05;
	f.config[0x41] = 0x40; /* a ring has an end */
	HOLDS(transport_link(&f.transport, &link) == 0 && is(&link, 0, 0, 0, 0) && f.reads < 100);
	f = blank();
	f.config[0x34] = 0xfe; /* reserved bits, and a capability that the space cuts off */
	f.config[0xfc] = 0x10;
	HOLDS(transport_link(&f.transport, &link) == -EIO && is(&link, 0, 0, 0, 0));
	f = blank();
	f.config[0x34] = 0x10; /* points into the header */
	f.config[0x10] = 0x10;
	HOLDS(transport_link(&f.transport, &link) == 0 && is(&link, 0, 0, 0, 0));
}

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	struct transport_link link;
	struct transport *t;

	HOLDS(argc == 2);
	fakes();
	card_start(&card, argv[1]);
	t = card_connect(&card, "io", 1 << 16);
	HOLDS(transport_link(t, &link) == 0 && is(&link, 2500, 4, 2500, 4));
	t->ops->close(t);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}
