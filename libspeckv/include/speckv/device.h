/* SPDX-License-Identifier: MIT */
/**
 * speckv/device.h - devices: find, open, describe, test, close.
 *
 * Device names: emu:NAME, host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y.
 *   emu:NAME                an emulated card; a small table in the runtime folder caches its pools
 *   host:DRAM, host:numaN   a small table file in the runtime folder, one file per pool beside it
 *   host:/path (new file)   the same, at that path: table /path, pools /path.pools/NAME
 *   host:/path (a file with a size) and host:/dev/dax*
 *                           one medium of fixed size that holds table and pools
 */
#ifndef SPECKV_DEVICE_H
#define SPECKV_DEVICE_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum speckv_open_flags {
	SPECKV_OPEN_CREATE = 1u << 0, /**< create the medium if there is none */
	/** overwrite a medium that is not ours (command line: --yes) */
	SPECKV_OPEN_FORMAT = 1u << 1,
};

enum speckv_medium_state {
	SPECKV_MEDIUM_ABSENT = 0, /**< nothing there yet */
	SPECKV_MEDIUM_READY = 1, /**< a superblock of this version */
	SPECKV_MEDIUM_UNRECOGNIZED = 2, /**< something else, described by `found` */
	SPECKV_MEDIUM_OTHER_VERSION = 3, /**< our superblock, of another version */
	SPECKV_MEDIUM_INCOMPLETE = 4, /**< ours, creation not finished */
	SPECKV_MEDIUM_TRUNCATED = 5, /**< ours, shorter than its superblock says */
	SPECKV_MEDIUM_DENIED = 6, /**< no permission to read */
	SPECKV_MEDIUM_OFFLINE = 7, /**< a card that does not answer; reason in `found` */
};

enum speckv_durability {
	SPECKV_DURABLE_PROCESS = 0, /**< survives processes, lost at reboot (DRAM, NUMA) */
	/** every completed put survives power loss (file: msync; devdax: CLFLUSHOPT) */
	SPECKV_DURABLE_POWER = 1,
};

struct speckv_device_info {
	char name[SPECKV_NAME_BYTES * 4]; /**< as given: "host:DRAM" */
	char path[SPECKV_PATH_BYTES]; /**< file or device node that holds the superblock */
	char found[512]; /**< contents, one line of text */
	uint8_t uuid[SPECKV_UUID_BYTES];
	uint32_t state; /**< enum speckv_medium_state */
	uint32_t layout_version;
	uint32_t single_inode; /**< 1: all pools are in one inode and share one owner */
	uint32_t durability; /**< enum speckv_durability */
	uint32_t uid, gid, mode; /**< of the superblock's inode */
	uint32_t pools;
	uint32_t codec_modes; /**< bit map of modes */
	int32_t numa_node; /**< -1: none */
	uint64_t capacity_bytes; /**< total room for pools */
	/**
	 * taken by pools, full or empty, and by their tables; the contents of pools are their
	 * used_bytes
	 */
	uint64_t allocated_bytes;
	/** room for the largest new pool, its tables included */
	uint64_t free_bytes;
	uint64_t created_ns;
	uint32_t manager_pid; /**< process that holds the manager lock; 0: none */
	char manager_command[64];
};

/**
 * Describe the contents of a device name without changing them. Fills `info` for every state.
 * Errors: -EINVAL (bad name), -ENODEV (no such NUMA node or node file), -EOPNOTSUPP (not a medium:
 * a folder, a socket).
 */
int speckv_device_probe(struct speckv_ctx *ctx, const char *name, struct speckv_device_info *info);

/**
 * Open a device. SPECKV_OPEN_CREATE creates a missing medium; an unrecognized, other-version or
 * incomplete one is only overwritten with SPECKV_OPEN_FORMAT as well. Errors: -ENOENT, -EACCES,
 * -EEXIST (unrecognized), -EPROTONOSUPPORT (other version), -EUCLEAN (incomplete or damaged),
 * -EBADMSG (truncated), -EBUSY (another manager), -EINVAL, -ENODEV, -ENOSPC. -EACCES also if the
 * runtime folder, the medium or its folder of pools belongs to another user or is writable by
 * others. If the medium was closed, removed or recreated meanwhile, every call on its handle fails
 * with -ESTALE.
 */
int speckv_device_open(struct speckv_ctx *ctx, const char *name, unsigned int flags,
	struct speckv_device **out);
/** Close; pools opened through it must have been closed. NULL is allowed. */
void speckv_device_close(struct speckv_device *dev);
struct speckv_ctx *speckv_device_ctx(struct speckv_device *dev);
int speckv_device_info(struct speckv_device *dev, struct speckv_device_info *info);

/** Called once per device; a non-zero result stops the iteration, which returns it. */
typedef int (*speckv_device_cb)(const struct speckv_device_info *info, void *arg);
/**
 * List every device that this user can see: emulated cards, host engines of the runtime folder, and
 * media at paths that were created or opened here. Errors: -EACCES (another user's runtime folder),
 * and the result of the callback.
 */
int speckv_device_foreach(struct speckv_ctx *ctx, speckv_device_cb cb, void *arg);

enum speckv_remove_flags {
	SPECKV_REMOVE_POOLS = 1u << 0, /**< destroy its pools too, zeroing them */
	/** check only: return the result of the removal, change nothing */
	SPECKV_REMOVE_DRY_RUN = 1u << 1,
};
/**
 * Close a device for good. host:DRAM and host:numaN free their memory; a medium at a path is
 * removed from the runtime folder's list and, if it has no pools, its superblock is erased (the
 * file is deleted if libspeckv created it). All or nothing: an error before the first pool is
 * destroyed, as every one below, leaves everything unchanged. Errors: -EBUSY (pools in use, or
 * another manager), -ENOTEMPTY (pools, and no SPECKV_REMOVE_POOLS), -EACCES, -ENOENT.
 */
int speckv_device_remove(struct speckv_ctx *ctx, const char *name, unsigned int flags);

/** One step of a self-test: result 0 or a negative errno, nanoseconds, a line of text. */
struct speckv_selftest_step {
	char name[48];
	char detail[160];
	int32_t result;
	uint32_t reserved;
	uint64_t elapsed_ns;
};
typedef int (*speckv_selftest_cb)(const struct speckv_selftest_step *step, void *arg);
/**
 * Test the superblock, the checksum kernels against a known value, a round trip of every codec
 * mode, and write/read/verify of scratch memory (not on a medium of fixed size); on a card, its own
 * tests. Non-destructive. Returns 0, or the first failing step's error.
 */
int speckv_device_selftest(struct speckv_device *dev, speckv_selftest_cb cb, void *arg);

#ifdef __cplusplus
}
#endif
#endif
