// SPDX-License-Identifier: MIT
/* Selection of the backend by device name. */
#include "cards.h"
#include "transport/scheme.h"

int device_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium)
{
	bool card = transport_scheme(name) != NULL;
	int rc = card ? card_parse(ctx, name, medium) : medium_parse(ctx, name, medium);

	medium->backend = card ? &card_device : &mapped_device;
	return rc;
}

int device_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info)
{
	return medium->backend->probe(ctx, medium, info);
}
