// SPDX-License-Identifier: MIT
/* Selection of a transport by the scheme of a device name. */
#include "scheme.h"

static const struct transport_scheme *const schemes[] = { &transport_emulated };

#define SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

const struct transport_scheme *transport_scheme(const char *device)
{
	for (size_t i = 0; device && i < SCHEMES; i++)
		if (strncmp(device, schemes[i]->prefix, strlen(schemes[i]->prefix)) == 0)
			return schemes[i];
	return NULL;
}

static int find_scheme(struct speckv_ctx *ctx, const char *device,
	const struct transport_scheme **out)
{
	*out = transport_scheme(device);
	return *out ? 0
		    : fail(ctx, -EOPNOTSUPP,
			      "%s is not the name of a card; emulated ones are named emu:NAME",
			      device ? device : "(null)");
}

int transport_open(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	size_t arena_bytes, struct transport **out)
{
	const struct transport_scheme *scheme;
	int rc = find_scheme(ctx, device, &scheme);

	*out = NULL;
	return rc ? rc : scheme->open(ctx, device, role, arena_bytes, out);
}

int transport_folder(struct speckv_ctx *ctx, const char *device, char path[SPECKV_PATH_BYTES],
	struct folder *out)
{
	const struct transport_scheme *scheme;
	int rc = find_scheme(ctx, device, &scheme);

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	return rc ? rc : scheme->folder(ctx, device, path, out);
}

int transport_unreachable(struct speckv_ctx *ctx, const char *device, enum transport_role role,
	int rc)
{
	const struct transport_scheme *scheme = transport_scheme(device);

	return scheme ? scheme->unreachable(ctx, device, role, rc) : rc;
}

int transport_list(struct speckv_ctx *ctx,
	int (*cb)(struct speckv_ctx *ctx, const char *device, void *arg), void *arg)
{
	int rc = 0;

	for (size_t i = 0; i < SCHEMES && !rc; i++)
		rc = schemes[i]->list(ctx, cb, arg);
	return rc;
}
