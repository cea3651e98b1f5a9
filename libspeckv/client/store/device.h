/* SPDX-License-Identifier: MIT */
/* A device on its medium: media, tables, records of pools, locks. Included by store.h. */
#ifndef SPECKV_CLIENT_DEVICE_H
#define SPECKV_CLIENT_DEVICE_H

#include "base/base.h"
#include "operations.h"
#include "layout.h"
#include "base/fork.h"

/* ---- medium.c, medium_make.c, medium_probe.c: the medium of a device name ------------------- */

struct medium {
	char name[SPECKV_NAME_BYTES * 4];
	char path[SPECKV_PATH_BYTES]; /* of the superblock's inode; empty: none */
	const struct device_backend *backend;
	bool runtime; /* in the runtime folder */
	bool node; /* a device node (devdax) */
	int numa_node; /* -1: none */
	uint64_t node_bytes; /* size of a device node */
	bool named; /* the device has a uuid of its own, used by its table: */
	uint8_t uuid[SPECKV_UUID_BYTES];
};
/* Of host:DRAM, host:numaN, host:/path. The caller sets the backend. */
int medium_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
/* Describe the contents of its path. */
int medium_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info);
/*
 * 1: created by this call; 0: the medium changed meanwhile, probe again. `format`: overwrite
 * unusable contents.
 */
int medium_make(struct speckv_ctx *ctx, const struct medium *medium, bool format);
uint32_t medium_super_crc(const struct lay_superblock *super);
/* Is this copy of a superblock complete and undamaged? */
bool medium_super_sound(const struct lay_superblock *super);
/*
 * Check that the medium can be overwritten as one of fixed size, and how large that would be.
 * Returns its descriptor; changes nothing. Text set.
 */
int medium_format_check(struct speckv_ctx *ctx, const struct medium *medium, uint64_t *bytes);
/* Open the folder of the superblock's inode, and that inode in it. Errors: those of folder.h. */
int medium_folder(struct speckv_ctx *ctx, const struct medium *medium, unsigned int flags,
	struct folder *out);
int medium_open(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	int flags);
/* The folder of pools that are files of their own. */
int medium_pools(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	unsigned int flags, struct folder *out);
int medium_pool_path(const struct medium *medium, const char *pool, char path[SPECKV_PATH_BYTES]);

/* ---- space.c: room that a medium still has -------------------------------------------------- */

/* Free memory or disk that the medium's file system can still give; all of it. */
uint64_t medium_available(const struct medium *medium);
uint64_t medium_total(const struct medium *medium);
/* Inodes that its file system can still give; UINT64_MAX where it counts none. */
uint64_t medium_inodes(const struct medium *medium);
bool medium_read_only(const struct medium *medium);
/* -EFBIG, text set: the file size exceeds this process's limit. */
int file_size_check(struct speckv_ctx *ctx, const char *path, uint64_t bytes, const char *else_do);
int medium_bind(int numa_node, void *address, uint64_t bytes);

/* ---- register.c: links to media outside of the runtime folder ------------------------------- */

/* Add and remove the link to a medium outside of the runtime folder. */
int medium_register(struct speckv_ctx *ctx, const struct medium *medium);
void medium_unregister(struct speckv_ctx *ctx, const struct medium *medium);

/* ---- table.c: a device and the records of its pools ----------------------------------------- */

struct speckv_device {
	struct speckv_ctx *ctx;
	struct medium medium;
	struct folder folder; /* that holds the table */
	int fd; /* of the mapping */
	int lock_fd; /* of the locks, an open file description of its own; owned by the guard */
	bool writable;
	struct lay_device *table; /* owned by the guard */
	_Atomic uint32_t lost; /* as in struct region */
	/* private copies, validated at open: the shared table may change */
	bool single_inode, made_file;
	uint32_t durability;
	uint64_t medium_bytes;
	uint8_t uuid[SPECKV_UUID_BYTES];
	uid_t owner; /* of the table */
	/* pools, by record, whose manager slot a thread of this handle holds */
	_Atomic uint64_t manager_slots;
	uint32_t codec_modes; /* the modes the device itself encodes */
	void *managed; /* the backend's, between device_manage() and device_unmanage() */
	/*
	 * records that the last device_manage() finished for a dead manager, or would finish if not
	 * inspecting
	 */
	uint64_t settled;
	/*
	 * inspecting, of a record that the next manager finishes: 0: unchanged; RECORD_GONE; else
	 * the bytes of its extents that stay
	 */
	_Atomic uint64_t left[LAY_POOLS];
	struct fork_guard guard, locks; /* of the table; of the locks */
	pthread_mutex_t managing; /* OFD locks do not exclude threads that share a descriptor */
};
/*
 * 0, -EOWNERDEAD in a forked child, -ESTALE where the device's name now leads to another table or
 * none. Makes system calls.
 */
int device_usable(struct speckv_device *dev);
/*
 * Why a pool being created or removed cannot be used: -EBUSY (by its manager, named in the text) or
 * -EUCLEAN (interrupted; the text names the repair). Text set.
 */
int device_between(struct speckv_device *dev, const char *name);
/* Copy the record of that name; returns its number or -ENOENT. device_look() sets no text. */
int device_look(struct speckv_device *dev, const char *name, struct lay_pool_record *copy);
int device_find(struct speckv_device *dev, const char *name, struct lay_pool_record *copy);
bool record_sane(const struct speckv_device *dev, const struct lay_pool_record *record);
/* Keep the first `bytes` of a pool's extents. */
void extents_cut(struct lay_pool_record *record, uint64_t bytes);
#define RECORD_GONE 1
/*
 * Private copy of a record; while inspecting, as the next manager leaves it. False: the record is
 * free.
 */
bool record_copy(const struct speckv_device *dev, int number, struct lay_pool_record *copy);
/* The first unit of a single inode behind the table. */
#define DEVICE_TABLE_END ((sizeof(struct lay_device) + LAY_UNIT - 1) & ~(LAY_UNIT - 1))
int device_extent_alloc(struct speckv_device *dev, uint64_t bytes, struct lay_extent *out);
uint64_t device_largest_free(struct speckv_device *dev, uint64_t *total_free);
/* A record's name, copied: other processes may write the medium. */
const char *record_name(const struct lay_pool_record *record, char name[SPECKV_NAME_BYTES]);
/* 0, or -ESTALE, text set: the name in that folder leads to another table. */
int device_table_current(struct speckv_device *dev, const struct folder *in);

/* ---- lockfiles.c: the files that hold the locks of a device and of its pools ---------------- */

/* May this user manage the device, by file ownership and permissions? */
bool device_may_manage(const struct speckv_device *dev);
/*
 * Open the manager's lock file, for a user who may manage: a file in the folder of pools, or the
 * single inode itself. The guard owns the descriptor. Text set.
 */
int device_lock_guard(struct speckv_device *dev);
/* Take the manager's lock, in the file that the name leads to now. -EAGAIN: held. */
int device_lock(struct speckv_device *dev);
/* ".UUID.suffix": a name in the folder of pools that is not a valid pool name. */
void pool_hidden_name(const struct lay_pool_record *record, const char *suffix, char name[48]);
/* Mode of the pool's lock file: read and write for those who have both on the pool. */
mode_t pool_lock_mode(mode_t pool_mode);
int pool_lock_make(const struct folder *pools, const struct lay_pool_record *record);
/*
 * Rule for a pool's file or its lock file: as writable as the record says. Any owner in a folder of
 * root or of this user, as only root changes owners there, and a record follows its file.
 */
struct file_rule pool_file_rule(const struct folder *pools, const char *name,
	const struct lay_pool_record *record);
/* Does a file have the owner and group of the record, and this mode? Set those, and flush them. */
bool pool_file_owned(const struct stat *st, const struct lay_pool_record *record, mode_t mode);
int pool_file_own(int fd, const struct lay_pool_record *record, mode_t mode);
/* Path of the locks, for texts; returns `path`. */
const char *pool_lock_path(const struct region *region, char path[SPECKV_PATH_BYTES]);
/* -ENOLCK: the lock file is missing. Not writable: -1 where this user may not open it. */
int pool_lock_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, bool writable);
/* Does the lock file exist with another owner or mode than the pool's file implies? */
bool pool_lock_differs(const struct folder *pools, const char *name, const struct stat *file);

#endif
