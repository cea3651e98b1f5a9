// SPDX-License-Identifier: MIT
/*
 * Discovery: media of the runtime folder, emulated cards, and the links of its media/ to media at
 * paths.
 */
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin.h"
#include "transport/scheme.h"

static int report_device(struct speckv_ctx *ctx, const char *name, speckv_device_cb cb, void *arg)
{
	struct speckv_device_info info;
	struct speckv_device *dev;
	struct medium medium;

	if (device_parse(ctx, name, &medium) || device_probe(ctx, &medium, &info) ||
		info.state == SPECKV_MEDIUM_ABSENT)
		return 0;
	if (info.state == SPECKV_MEDIUM_READY && speckv_device_open(ctx, name, 0, &dev) == 0) {
		speckv_device_info(dev, &info);
		speckv_device_close(dev);
	}
	return cb(&info, arg);
}

struct teller {
	speckv_device_cb cb;
	void *arg;
};

static int tell_one(struct speckv_ctx *ctx, const char *device, void *arg)
{
	const struct teller *teller = arg;

	return report_device(ctx, device, teller->cb, teller->arg);
}

/* The device name of an entry of a folder; false: none. */
typedef bool (*namer)(const struct folder *folder, const char *entry,
	char name[SPECKV_PATH_BYTES + 8]);

static bool name_runtime(const struct folder *folder, const char *entry,
	char name[SPECKV_PATH_BYTES + 8])
{
	unsigned int node;
	char tail;

	(void)folder;
	snprintf(name, SPECKV_PATH_BYTES + 8, "host:%s", entry);
	return strcmp(entry, "DRAM") == 0 || sscanf(entry, "numa%u%c", &node, &tail) == 1;
}

static bool name_linked(const struct folder *folder, const char *entry,
	char name[SPECKV_PATH_BYTES + 8])
{
	char target[SPECKV_PATH_BYTES];
	ssize_t got = readlinkat(folder->fd, entry, target, sizeof(target) - 1);

	target[got > 0 ? got : 0] = 0;
	snprintf(name, SPECKV_PATH_BYTES + 8, "host:%s", target);
	return got > 0;
}

/*
 * Call back for each device of a subfolder of the runtime folder (NULL: itself). An untrusted
 * folder has none.
 */
static int each_entry(struct speckv_ctx *ctx, const char *folder, namer name_of,
	speckv_device_cb cb, void *arg)
{
	char name[SPECKV_PATH_BYTES + 8];
	struct dirent **list = NULL;
	struct folder in;
	int n, rc = 0;

	if (runtime_folder(ctx, folder, 0, &in) != 0)
		return 0;
	n = scandirat(in.fd, ".", &list, NULL, versionsort);
	for (int i = 0; i < n; i++) {
		if (!rc && name_of(&in, list[i]->d_name, name))
			rc = report_device(ctx, name, cb, arg);
		free(list[i]);
	}
	free(list);
	folder_close(&in);
	return rc;
}

int speckv_device_foreach(struct speckv_ctx *ctx, speckv_device_cb cb, void *arg)
{
	struct folder runtime;
	int rc = runtime_folder(ctx, NULL, 0, &runtime);

	folder_close(&runtime);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	rc = transport_list(ctx, tell_one, &(struct teller){ cb, arg });
	if (!rc)
		rc = each_entry(ctx, NULL, name_runtime, cb, arg);
	return rc ? rc : each_entry(ctx, "media", name_linked, cb, arg);
}

int speckv_device_probe(struct speckv_ctx *ctx, const char *name, struct speckv_device_info *info)
{
	struct medium medium;
	int rc;

	if (!ctx || !info)
		return -EINVAL;
	rc = device_parse(ctx, name, &medium);
	return rc ? rc : device_probe(ctx, &medium, info);
}
