// SPDX-License-Identifier: MIT
/* <speckv/folder.h>, and the runtime folder. */
#include <sys/stat.h>

#include "base.h"
#include "folder.h"

int speckv_folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags)
{
	struct folder folder;
	int rc;

	if (!ctx || !path)
		return -EINVAL;
	if (*path != '/' ||
		flags &
			~(unsigned int)(SPECKV_FOLDER_MAKE | SPECKV_FOLDER_GROUP |
				SPECKV_FOLDER_PLAIN))
		return fail(ctx, -EINVAL, "%s: not an absolute path, or unknown flags %#x", path,
			flags);
	rc = folder_open(ctx, path, flags, &folder);
	if (rc == -ENOENT)
		fail_text(ctx, "there is no folder %s", path);
	return rc ? rc : folder.fd;
}

int speckv_file_open(struct speckv_ctx *ctx, int folder, const char *path, int flags,
	unsigned int mode)
{
	struct folder in = { .fd = folder, .trusted = true };
	struct stat st;
	int fd;

	if (!ctx || !path || !*path_name(path))
		return -EINVAL;
	if (fstat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
		return fail(ctx, -ENOTDIR, "%s: descriptor %d is not a folder", path, folder);
	in.owner = st.st_uid;
	fd = file_open(ctx, &in, path, flags, mode, &private_file);
	if (fd == -ENOENT || fd == -EEXIST)
		fail_text(ctx, "%s %s", path, fd == -ENOENT ? "does not exist" : "exists already");
	return fd;
}

int runtime_folder(struct speckv_ctx *ctx, const char *name, unsigned int flags, struct folder *out)
{
	char path[SPECKV_PATH_BYTES];
	struct folder runtime;
	int rc;

	flags |= ctx->runtime_named ? FOLDER_GROUP : 0;
	rc = folder_open(ctx, ctx->runtime_dir, flags, name ? &runtime : out);
	if (rc || !name)
		return rc;
	snprintf(path, sizeof(path), "%.*s/%s", SPECKV_PATH_BYTES - 16, ctx->runtime_dir, name);
	rc = folder_enter(ctx, &runtime, path, flags, out);
	folder_close(&runtime);
	return rc;
}
