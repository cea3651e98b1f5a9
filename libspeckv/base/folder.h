/* SPDX-License-Identifier: MIT */
/*
 * Trusted folders and files. Each is opened by descriptor from the folder above it, no component
 * follows another user's link, and owner, type and mode are read from the descriptor used
 * afterwards. The policy is in LAYOUT.md, "Trust".
 */
#ifndef SPECKV_BASE_FOLDER_H
#define SPECKV_BASE_FOLDER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <speckv/folder.h>

#define NO_OWNER ((uid_t) - 1)

struct folder {
	int fd;
	uid_t owner; /* trusted here, besides root and this user */
	bool trusted; /* only trusted users can create names in it */
};

/*
 * What is accepted besides a regular file of root, this user or the folder's owner that no other
 * user may write.
 */
struct file_rule {
	uid_t owner; /* also trusted; NO_OWNER: none */
	mode_t writers; /* of S_IWGRP | S_IWOTH: classes that may write it */
	bool group; /* may be shared by a group: see folder_open() */
	bool node; /* a device node too */
};
extern const struct file_rule private_file;

/*
 * Open a folder that only root and this user can change. FOLDER_GROUP: also another user's, if a
 * group of this process may read it (never for root). Errors, text set: -EACCES (not trusted, or no
 * permission), -ENOENT (no text), -ENOTDIR.
 */
int folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags, struct folder *out);
/*
 * Open the folder of the last component of a path, of any owner: what is opened in it is checked by
 * itself.
 */
int folder_holding(struct speckv_ctx *ctx, const char *path, struct folder *out);
/* Open a folder in a folder; `path` is its whole path, for its name and for texts. */
int folder_enter(struct speckv_ctx *ctx, const struct folder *in, const char *path,
	unsigned int flags, struct folder *out);
void folder_close(struct folder *folder);
/*
 * Open a file in a folder; `path` is its whole path; `flags` and `mode` as open(2). Returns the
 * descriptor. Errors: those of folder_open(), -EROFS and -ENOSPC (text set), -EEXIST (no text).
 */
int file_open(struct speckv_ctx *ctx, const struct folder *in, const char *path, int flags,
	mode_t mode, const struct file_rule *rule);
/* Does this name still lead to the open inode? */
bool file_same(const struct folder *in, const char *path, int fd);
/* The last component of a path. */
const char *path_name(const char *path);

#define FOLDER_MAKE SPECKV_FOLDER_MAKE
#define FOLDER_GROUP SPECKV_FOLDER_GROUP
/* folder_enter(): the name may be a trusted user's link to such a folder */
#define FOLDER_LINK (1u << 16)

#define SPACE_WORDS 200
/*
 * Text for a failure to create or extend a file, with needed and free space. `fd`: any file in its
 * file system; `want`: bytes, 0 if few.
 */
const char *space_words(char text[SPACE_WORDS], int fd, uint64_t want, int error);
/* fsync() a folder: names created, renamed and removed in it. */
int folder_flush(const struct folder *folder);

/* runtime.c */

/* Open a subfolder of the runtime folder; name NULL: the runtime folder itself. */
int runtime_folder(struct speckv_ctx *ctx, const char *name, unsigned int flags,
	struct folder *out);

#endif
