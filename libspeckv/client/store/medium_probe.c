// SPDX-License-Identifier: MIT
/* Contents of a medium: a table, or a known foreign format. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"

/* Name common foreign formats. Offsets and magics: the formats' own documents. */
static void describe(const uint8_t *bytes, size_t got, uint64_t size, char *text, size_t text_bytes)
{
	static const struct {
		size_t offset, length;
		const char *magic, *what;
	} known[] = {
		{ 1080, 2, "\x53\xef", "an ext2/3/4 file system" },
		{ 0, 4, "XFSB", "an XFS file system" },
		{ 65600, 8, "_BHRfS_M", "a Btrfs file system" },
		{ 0, 6, "LUKS\xba\xbe", "a LUKS encrypted volume" },
		{ 536, 8, "LVM2 001", "an LVM physical volume" },
		{ 512, 8, "EFI PART", "a GPT partition table" },
		{ 510, 2, "\x55\xaa", "an MBR partition table or FAT boot sector" },
		{ 4086, 10, "SWAPSPACE2", "swap space" },
		{ 0, 2, "\x1f\x8b", "gzip data" },
		{ 0, 6,
			"\xfd"
			"7zXZ\0",
			"xz data" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "zstd data" },
		{ 0, 4,
			"\x7f"
			"ELF",
			"an ELF file" },
		{ 0, 15, "SQLite format 3", "an SQLite database" },
		{ 0, 4, "PK\x03\x04", "a zip archive" },
		{ 0, 4, "QFI\xfb", "a qcow2 disk image" },
		{ 257, 5, "ustar", "a tar archive" },
	};
	char hex[3 * 16 + 1] = "", size_text[32];
	size_t zero = 0, printable = 0, look = got < 512 ? got : 512;

	human(size_text, size);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].offset + known[i].length <= got &&
			memcmp(bytes + known[i].offset, known[i].magic, known[i].length) == 0) {
			snprintf(text, text_bytes, "%s, %s", known[i].what, size_text);
			return;
		}
	while (zero < got && !bytes[zero])
		zero++;
	if (zero == got) {
		char looked[32];

		snprintf(text, text_bytes, "no superblock; its first %s are zero, %s in all",
			human(looked, got), size_text);
		return;
	}
	for (size_t i = 0; i < look; i++)
		printable += (bytes[i] >= 0x20 && bytes[i] < 0x7f) || bytes[i] == '\n' ||
			bytes[i] == '\t' || bytes[i] == '\r';
	if (printable == look) {
		snprintf(text, text_bytes, "text, %s", size_text);
		return;
	}
	for (size_t i = 0; i < 16 && i < got; i++)
		snprintf(hex + 3 * i, 4, "%02x ", bytes[i]);
	snprintf(text, text_bytes, "unknown data, %s, beginning %s", size_text, hex);
}

uint32_t medium_super_crc(const struct lay_superblock *super)
{
	struct lay_superblock copy;

	memcpy((void *)&copy, (const void *)super, sizeof(copy));
	atomic_init(&copy.state, LAY_MEDIUM_READY);
	return speckv_crc32c(0, &copy, offsetof(struct lay_superblock, crc));
}

bool medium_super_sound(const struct lay_superblock *super)
{
	return super->magic == LAY_DEVICE_MAGIC && super->version == LAY_VERSION &&
		load_acquire(&super->state) == LAY_MEDIUM_READY &&
		super->crc == medium_super_crc(super);
}

static void judge_super(const struct lay_superblock *super, uint64_t size,
	struct speckv_device_info *info)
{
	char have[32], want[32];
	uint32_t state = load_acquire(&super->state);

	info->layout_version = super->version;
	if (super->version != LAY_VERSION) {
		info->state = SPECKV_MEDIUM_OTHER_VERSION;
		snprintf(info->found, sizeof(info->found),
			"SpecKV format, layout version %u; this build reads version %u",
			super->version, LAY_VERSION);
	} else if (state == LAY_MEDIUM_MAKING) {
		info->state = SPECKV_MEDIUM_INCOMPLETE;
		snprintf(info->found, sizeof(info->found), "SpecKV format, creation not finished");
	} else if (state != LAY_MEDIUM_READY || super->crc != medium_super_crc(super)) {
		info->state = SPECKV_MEDIUM_INCOMPLETE;
		snprintf(info->found, sizeof(info->found),
			"a speckv superblock that is damaged (its checksum does not match)");
	} else if (size < super->medium_bytes || super->medium_bytes < sizeof(struct lay_device)) {
		info->state = SPECKV_MEDIUM_TRUNCATED;
		snprintf(info->found, sizeof(info->found), "SpecKV format, truncated to %s of %s",
			human(have, size), human(want, super->medium_bytes));
	} else {
		info->state = SPECKV_MEDIUM_READY;
		snprintf(info->found, sizeof(info->found), "SpecKV format, layout version %u",
			super->version);
	}
	memcpy(info->uuid, super->uuid, sizeof(info->uuid));
	info->single_inode = super->single_inode;
	info->durability = super->durability;
	info->numa_node = super->numa_node;
	info->created_ns = super->created_ns;
	info->manager_pid = 0;
}

/* The superblock's inode cannot be opened, or is not trusted: report why, and its owner. */
static void probe_denied(struct speckv_ctx *ctx, const struct medium *medium,
	const struct folder *in, int rc, struct speckv_device_info *info)
{
	struct stat st;

	if (in->fd >= 0 &&
		fstatat(in->fd, path_name(medium->path), &st, AT_SYMLINK_NOFOLLOW) == 0) {
		info->uid = st.st_uid;
		info->gid = st.st_gid;
		info->mode = st.st_mode & 07777;
	}
	info->state = rc == -ENOENT ? SPECKV_MEDIUM_ABSENT : SPECKV_MEDIUM_DENIED;
	snprintf(info->found, sizeof(info->found), "%s",
		rc == -ENOENT ? "nothing yet" : speckv_strerror(ctx));
}

int medium_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info)
{
	const size_t look = 128 << 10;
	struct folder in = { .fd = -1 };
	uint8_t *bytes;
	struct stat st;
	uint64_t size;
	ssize_t got;
	int fd, rc;

	memset(info, 0, sizeof(*info));
	snprintf(info->name, sizeof(info->name), "%s", medium->name);
	snprintf(info->path, sizeof(info->path), "%s", medium->path);
	info->numa_node = medium->numa_node;
	info->codec_modes = speckv_codec_modes();
	info->uid = info->gid = (uint32_t)-1;
	info->durability = medium->runtime ? SPECKV_DURABLE_PROCESS : SPECKV_DURABLE_POWER;
	if (!medium->path[0])
		return 0;
	info->capacity_bytes = medium_total(medium);
	info->free_bytes = medium_available(medium);
	rc = medium_folder(ctx, medium, 0, &in);
	fd = rc ? rc : medium_open(ctx, medium, &in, O_RDONLY);
	if (fd < 0) {
		probe_denied(ctx, medium, &in, fd, info);
		folder_close(&in);
		return 0;
	}
	folder_close(&in);
	bytes = calloc(1, look);
	if (!bytes || fstat(fd, &st) != 0) {
		free(bytes);
		close(fd);
		return fail(ctx, -ENOMEM, "%s: out of memory", medium->path);
	}
	info->uid = st.st_uid;
	info->gid = st.st_gid;
	info->mode = st.st_mode & 07777;
	size = medium->node ? medium->node_bytes : (uint64_t)st.st_size;
	if (medium->node) { /* devdax has no read(), only mmap() */
		size_t window = size < LAY_UNIT ? (size_t)size : LAY_UNIT;
		void *map = mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);

		got = map == MAP_FAILED ? -1 : (ssize_t)(window < look ? window : look);
		if (got > 0)
			memcpy(bytes, map, (size_t)got);
		if (map != MAP_FAILED)
			munmap(map, window);
	} else {
		got = pread(fd, bytes, look, 0);
		if (got < 0) { /* hugetlbfs has no read() either */
			void *map = mmap(NULL, look, PROT_READ, MAP_SHARED, fd, 0);

			got = map == MAP_FAILED ? -1 : (ssize_t)look;
			if (got > 0)
				memcpy(bytes, map, look);
			if (map != MAP_FAILED)
				munmap(map, look);
		}
	}
	close(fd);
	if (got < 0) {
		info->state = SPECKV_MEDIUM_DENIED;
		snprintf(info->found, sizeof(info->found), "cannot be read: %s", strerror(errno));
	} else if (got == 0) {
		info->state = SPECKV_MEDIUM_ABSENT;
		snprintf(info->found, sizeof(info->found), "an empty file");
	} else if ((size_t)got >= sizeof(uint64_t) &&
		memcmp(bytes, &(uint64_t){ LAY_DEVICE_MAGIC }, sizeof(uint64_t)) == 0) {
		if ((size_t)got >= sizeof(struct lay_superblock)) {
			judge_super((const struct lay_superblock *)bytes, size, info);
		} else {
			info->state = SPECKV_MEDIUM_TRUNCATED;
			snprintf(info->found, sizeof(info->found),
				"SpecKV format, truncated to %zd bytes", got);
		}
	} else {
		info->state = SPECKV_MEDIUM_UNRECOGNIZED;
		describe(bytes, (size_t)got, size, info->found, sizeof(info->found));
	}
	free(bytes);
	return 0;
}
