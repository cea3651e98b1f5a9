// SPDX-License-Identifier: MIT
/* Links to media at paths, in the runtime folder. */
#include <fcntl.h>
#include <unistd.h>

#include "store.h"

static void link_name(const struct medium *medium, char name[20])
{
	uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a, for a file name only */

	for (const char *c = medium->path; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 0x100000001b3ull;
	snprintf(name, 20, "%016llx", (unsigned long long)hash);
}

int medium_register(struct speckv_ctx *ctx, const struct medium *medium)
{
	struct folder media;
	char name[20];
	int rc;

	if (medium->runtime)
		return 0;
	rc = runtime_folder(ctx, "media", FOLDER_MAKE, &media);
	if (rc)
		return rc;
	link_name(medium, name);
	if (symlinkat(medium->path, media.fd, name) == 0)
		rc = folder_flush(&media);
	else
		rc = errno == EEXIST ? 0 : -errno;
	folder_close(&media);
	return rc;
}

void medium_unregister(struct speckv_ctx *ctx, const struct medium *medium)
{
	struct folder media;
	char name[20];

	if (runtime_folder(ctx, "media", 0, &media) != 0)
		return;
	link_name(medium, name);
	if (unlinkat(media.fd, name, 0) == 0)
		folder_flush(&media);
	folder_close(&media);
}
