/* SPDX-License-Identifier: MIT */
/**
 * speckv/folder.h - folders and files for privileged processes, safe although other users can write
 * nearby.
 *
 * Every component of a path is opened from the folder above it; a symbolic link is followed only if
 * root or the effective user created it; owner, type and mode are read from the returned
 * descriptor.
 */
#ifndef SPECKV_FOLDER_H
#define SPECKV_FOLDER_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum speckv_folder_flags {
	/** create it (mode 0755 less the umask) if missing; the folder above must exist */
	SPECKV_FOLDER_MAKE = 1,
	/** also another user's, if a group of this process may read it; never for root */
	SPECKV_FOLDER_GROUP = 2,
	SPECKV_FOLDER_PLAIN = 4, /**< the last component may not be a link, of any owner */
};

/**
 * Open a folder that only root and the effective user can change (SPECKV_FOLDER_GROUP: also another
 * user's, readable by a group of this process). `path` is absolute. Returns a close-on-exec
 * descriptor, which the caller closes. Errors: -EACCES (another user's, or writable by others: the
 * text names a command that repairs it), -ENOENT, -ENOTDIR, -EINVAL. Threads: any.
 */
int speckv_folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags);
/**
 * Open a regular file in a folder: `path` is its whole path, of which only the last component is
 * looked up, in `folder`, never through a link. The file must belong to root, the effective user or
 * the folder's owner, and not be writable by other users. `flags` and `mode` as open(2); O_CLOEXEC
 * is added. Returns a descriptor, which the caller closes. Errors: as speckv_folder_open(), -EEXIST
 * with O_EXCL. Threads: any.
 */
int speckv_file_open(struct speckv_ctx *ctx, int folder, const char *path, int flags,
	unsigned int mode);

#ifdef __cplusplus
}
#endif
#endif
