/* SPDX-License-Identifier: MIT */
/*
 * Folders and files that this process acts in. Each is reached by descriptor from the folder above
 * it, no step follows a link that another user made, and owner, type and mode are read from the
 * descriptor that is used afterwards. LAYOUT.md, "Trust", is the policy.
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
	uid_t owner; /* trusted in it, beside root and this user */
	bool trusted; /* only trusted users can put a name into it */
};

/*
 * What a file may be, beyond a regular file of root, of this user or of its folder's owner that no
 * other user may write.
 */
struct file_rule {
	uid_t owner; /* trusted too; NO_OWNER: none */
	mode_t writers; /* of S_IWGRP | S_IWOTH: these may write it */
	bool group; /* may be shared by a group: see folder_open() */
	bool node; /* a device node too */
};
extern const struct file_rule private_file;

/*
 * A folder that only trusted users can change: of root or of this user. FOLDER_GROUP: or, for users
 * other than root, of another user who lets a group of theirs read it. Errors, text set: -EACCES
 * (not trusted, or no permission), -ENOENT (no text), -ENOTDIR.
 */
int folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags, struct folder *out);
/*
 * The folder that holds the last part of a path, of any owner: what is opened in it is looked at by
 * itself.
 */
int folder_holding(struct speckv_ctx *ctx, const char *path, struct folder *out);
/* A folder in a folder: `path` is its whole path, and ends with its name there. */
int folder_enter(struct speckv_ctx *ctx, const struct folder *in, const char *path,
	unsigned int flags, struct folder *out);
void folder_close(struct folder *folder);
/*
 * A file in a folder: `path` is its whole path; `flags` and `mode` as open(2). Returns the
 * descriptor. Errors: those of folder_open().
 */
int file_open(struct speckv_ctx *ctx, const struct folder *in, const char *path, int flags,
	mode_t mode, const struct file_rule *rule);
/* Does this name still lead to the inode that is open here? */
bool file_same(const struct folder *in, const char *path, int fd);
/* The last part of a path. */
const char *path_name(const char *path);

#define FOLDER_MAKE SPECKV_FOLDER_MAKE
#define FOLDER_GROUP SPECKV_FOLDER_GROUP
/* folder_enter(): the name may be a link, of a trusted user, to such a folder */
#define FOLDER_LINK (1u << 16)

/*
 * This machine's folder of emulated cards, of tables of cards, or of media at paths, in the runtime
 * folder.
 */
int runtime_folder(struct speckv_ctx *ctx, const char *name, unsigned int flags,
	struct folder *out);
#define SPACE_WORDS 200
/*
 * Why a file could not be made or grown, in words with both numbers; `fd`: of anything in its file
 * system, `want`: bytes, 0 where few.
 */
const char *space_words(char text[SPACE_WORDS], int fd, uint64_t want, int error);
/* Names made, renamed and removed in it. */
int folder_flush(const struct folder *folder);

#endif
