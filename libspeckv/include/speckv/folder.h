/* SPDX-License-Identifier: MIT */
/**
 * speckv/folder.h - folders and files in which a privileged process may act though other users can
 * write beside them.
 *
 * Every step of a path is opened from the folder above it; a symbolic link is followed only if root
 * or the effective user made it; owner, type and mode are read from the descriptor that is
 * returned.
 */
#ifndef SPECKV_FOLDER_H
#define SPECKV_FOLDER_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum speckv_folder_flags {
	/**
	 * make it (mode 0755 less the umask) where it is missing; the folder above must be there
	 */
	SPECKV_FOLDER_MAKE = 1,
	/**
	 * one of another user too, if a group that this process is in may read it; never for root
	 */
	SPECKV_FOLDER_GROUP = 2,
	SPECKV_FOLDER_PLAIN = 4, /**< the last part of the path is no link, of any owner */
};

/**
 * Open a folder that only root and the effective user can change (with SPECKV_FOLDER_GROUP: or
 * another user whose group this process is in). `path` is absolute. Returns a close-on-exec
 * descriptor, which the caller closes. Errors: -EACCES (another user's, or writable by others: the
 * text says the command that mends it), -ENOENT, -ENOTDIR, -EINVAL. Threads: any.
 */
int speckv_folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags);
/**
 * Open a regular file in a folder: `path` is its whole path, of which only the last part is looked
 * up, in `folder`, never through a link. It must belong to root, the effective user or the folder's
 * owner, and be writable by no other user. `flags` and `mode` as open(2); O_CLOEXEC is added.
 * Returns a descriptor, which the caller closes. Errors: as speckv_folder_open(), -EEXIST with
 * O_EXCL. Threads: any.
 */
int speckv_file_open(struct speckv_ctx *ctx, int folder, const char *path, int flags,
	unsigned int mode);

#ifdef __cplusplus
}
#endif
#endif
