// SPDX-License-Identifier: MIT
/*
 * Folders and files by descriptor, refused where another user could have created or can change
 * them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base.h"
#include "folder.h"

#define LINKS_MOST 40 /* as in the kernel */

const struct file_rule private_file = { .owner = NO_OWNER };

const char *path_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool owner_trusted(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static bool in_group(gid_t gid)
{
	gid_t *groups;
	int n = getgroups(0, NULL);
	bool found = gid == getegid();

	if (found || n <= 0)
		return found;
	groups = calloc((size_t)n, sizeof(*groups));
	n = groups ? getgroups(n, groups) : 0;
	for (int i = 0; i < n; i++)
		found = found || groups[i] == gid;
	free(groups);
	return found;
}

/* Is it another user's, but readable through a group of this process? Never for root. */
static bool group_shares(const struct stat *st)
{
	mode_t need = S_ISDIR(st->st_mode) ? S_IRGRP | S_IXGRP : S_IRGRP;

	return geteuid() != 0 && (st->st_mode & need) == need && in_group(st->st_gid);
}

static int refuse_owner(struct speckv_ctx *ctx, const char *path, const struct stat *st)
{
	const char *what = S_ISDIR(st->st_mode) ? "folder" : S_ISLNK(st->st_mode) ? "link" : "file";

	if (strcmp(path, ctx->runtime_dir) != 0 &&
		strncmp(path, ctx->runtime_dir, strlen(ctx->runtime_dir)) == 0)
		return fail(ctx, -EACCES,
			"the %s %s belongs to uid %u, not to root or uid %u: remove it with 'rm -r %s'",
			what, path, st->st_uid, (unsigned int)geteuid(), path);
	if (strcmp(path, ctx->runtime_dir) != 0)
		return fail(ctx, -EACCES,
			"the %s %s belongs to uid %u, not to root or uid %u: run as 'sudo -u \\#%u', or remove it with 'rm -r %s' if it is not meant to be there",
			what, path, st->st_uid, (unsigned int)geteuid(), st->st_uid, path);
	if (geteuid() == 0 && !ctx->runtime_named)
		return fail(ctx, -EACCES,
			"the runtime folder %s belongs to uid %u, not to root: remove it with 'rm -r %s'",
			path, st->st_uid, path);
	return fail(ctx, -EACCES,
		"the runtime folder %s belongs to uid %u, not to root or uid %u: choose another, 'export SPECKV_RUNTIME_DIR=$(mktemp -d /dev/shm/speckv-XXXXXX)'",
		path, st->st_uid, (unsigned int)geteuid());
}

static int refuse_writers(struct speckv_ctx *ctx, const char *path, const struct stat *st)
{
	if (st->st_mode & S_ISVTX)
		return fail(ctx, -EACCES,
			"%s is writable by all users (mode %04o): choose a folder in it, 'export SPECKV_RUNTIME_DIR=$(mktemp -d %s/speckv-XXXXXX)'",
			path, st->st_mode & 07777, path);
	return fail(ctx, -EACCES,
		"%s can be written by other users (uid %u, gid %u, mode %04o): 'chmod go-w %s' fixes it",
		path, st->st_uid, st->st_gid, st->st_mode & 07777, path);
}

static int refuse_kind(struct speckv_ctx *ctx, const char *path, const struct stat *st, bool folder)
{
	const char *what = S_ISLNK(st->st_mode) ? "a symbolic link"
		: S_ISDIR(st->st_mode)		? "a folder"
		: S_ISFIFO(st->st_mode)		? "a FIFO"
		: S_ISSOCK(st->st_mode)		? "a socket"
		: S_ISREG(st->st_mode)		? "a file"
						: "a device node";

	/* may name any file by mistake: do not suggest its removal */
	if (strcmp(path, ctx->runtime_dir) == 0 && ctx->runtime_named)
		return fail(ctx, folder && !S_ISLNK(st->st_mode) ? -ENOTDIR : -EACCES,
			"the runtime folder %s is %s: choose another, 'export SPECKV_RUNTIME_DIR=$(mktemp -d /dev/shm/speckv-XXXXXX)'",
			path, what);
	return fail(ctx, folder && !S_ISLNK(st->st_mode) ? -ENOTDIR : -EACCES,
		"%s is %s, not a %s: remove it with 'rm %s%s'", path, what,
		folder ? "folder" : "regular file", S_ISDIR(st->st_mode) ? "-r " : "", path);
}

/* Can any user replace entries of this folder, the first `length` bytes of a path? */
static int exchangeable(struct speckv_ctx *ctx, const char *path, size_t length,
	const struct stat *st)
{
	int shown = length ? (int)length : 1;

	if (!(st->st_mode & S_IWOTH) || st->st_mode & S_ISVTX)
		return 0;
	return fail(ctx, -EACCES,
		"any user can replace files in %.*s (mode %04o): 'chmod +t %.*s' fixes it", shown,
		length ? path : "/", st->st_mode & 07777, shown, length ? path : "/");
}

static int denied(struct speckv_ctx *ctx, const char *path, int error)
{
	switch (error) {
	case ENOENT:
		return -ENOENT;
	case EACCES:
	case EPERM:
		return fail(ctx, -EACCES, "no permission to open %s as uid %u: run as its owner",
			path, (unsigned int)geteuid());
	default:
		return fail(ctx, -error, "cannot open %s: %s", path, strerror(error));
	}
}

/* ---- walking a path ------------------------------------------------------------------------- */

struct walk {
	struct speckv_ctx *ctx;
	const char *path; /* for texts */
	char rest[2 * SPECKV_PATH_BYTES]; /* remaining path; links are replaced by their targets */
	int fd; /* O_PATH: the folder reached so far */
	size_t length; /* of the initial `rest` */
	unsigned int links;
};

/* Prepend a link's target to the rest. */
static int take_link(struct walk *w, int link_fd, const struct stat *st, const char *rest)
{
	char target[SPECKV_PATH_BYTES], joined[sizeof(w->rest)];
	ssize_t got;
	int root;

	if (!owner_trusted(st->st_uid))
		return fail(w->ctx, -EACCES,
			"%s leads through a symbolic link that uid %u made: name the folder itself",
			w->path, st->st_uid);
	if (++w->links > LINKS_MOST)
		return fail(w->ctx, -EACCES, "%s leads through more than %d symbolic links",
			w->path, LINKS_MOST);
	got = readlinkat(link_fd, "", target, sizeof(target) - 1);
	if (got < 0)
		return denied(w->ctx, w->path, errno);
	target[got] = 0;
	if ((size_t)snprintf(joined, sizeof(joined), "%s/%s", target, rest) >= sizeof(joined))
		return fail(w->ctx, -ENAMETOOLONG, "%s: the path is too long", w->path);
	memcpy(w->rest, joined, sizeof(w->rest));
	if (*target != '/')
		return 0;
	root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return denied(w->ctx, "/", errno);
	close(w->fd);
	w->fd = root;
	return 0;
}

/* Advance by one component. 1: done. */
static int walk_step(struct walk *w)
{
	char name[256], *at = w->rest;
	size_t length;
	struct stat st;
	int fd, rc = 0;

	at += strspn(at, "/");
	length = strcspn(at, "/");
	if (!length)
		return 1;
	if (length >= sizeof(name))
		return fail(w->ctx, -ENAMETOOLONG, "%s: the path is too long", w->path);
	memcpy(name, at, length);
	name[length] = 0;
	/* after a link the position in the text is unknown: show the whole path */
	if (fstat(w->fd, &st) == 0)
		rc = exchangeable(w->ctx, w->path,
			w->links || strlen(w->rest) > w->length ? strlen(w->path)
								: w->length - strlen(w->rest),
			&st);
	if (rc)
		return rc;
	fd = openat(w->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return denied(w->ctx, w->path, errno);
	if (fstat(fd, &st) != 0)
		rc = denied(w->ctx, w->path, errno);
	if (!rc && S_ISLNK(st.st_mode)) {
		rc = take_link(w, fd, &st, at + length);
	} else if (!rc && !S_ISDIR(st.st_mode)) {
		rc = refuse_kind(w->ctx, w->path, &st, true);
	} else if (!rc) {
		close(w->fd);
		w->fd = fd;
		memmove(w->rest, at + length, strlen(at + length) + 1);
		return 0;
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

/*
 * Open the folder of the first `length` bytes of a path, as an O_PATH descriptor. `from`: starting
 * folder; -1: the root.
 */
static int walk_path(struct speckv_ctx *ctx, int from, const char *path, size_t length,
	const char *text)
{
	struct walk w = { .ctx = ctx, .path = text, .length = length };
	int rc = 0;

	if (length >= sizeof(w.rest))
		return fail(ctx, -ENAMETOOLONG, "%s: the path is too long", path);
	memcpy(w.rest, path, length);
	w.rest[length] = 0;
	w.fd = from < 0 ? open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)
			: openat(from, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (w.fd < 0)
		return denied(ctx, path, errno);
	while (!rc)
		rc = walk_step(&w);
	if (rc == 1)
		return w.fd;
	if (w.fd >= 0)
		close(w.fd);
	return rc;
}

/* ---- folders -------------------------------------------------------------------------------- */

/* Check a folder that is open as O_PATH, and reopen it for use. */
static int take_folder(struct speckv_ctx *ctx, int path_fd, uid_t above, const char *path,
	unsigned int flags, struct folder *out)
{
	struct stat st;

	if (fstat(path_fd, &st) != 0)
		return denied(ctx, path, errno);
	if (!S_ISDIR(st.st_mode))
		return refuse_kind(ctx, path, &st, true);
	if (!owner_trusted(st.st_uid) && st.st_uid != above &&
		!(flags & FOLDER_GROUP && group_shares(&st)))
		return refuse_owner(ctx, path, &st);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return refuse_writers(ctx, path, &st);
	out->fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* search permission is enough for known names */
	if (out->fd < 0 && errno == EACCES)
		out->fd = openat(path_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (out->fd < 0)
		return denied(ctx, path, errno);
	out->owner = st.st_uid;
	out->trusted = true;
	return 0;
}

int folder_holding(struct speckv_ctx *ctx, const char *path, struct folder *out)
{
	struct stat st;
	int fd, rc;

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	fd = walk_path(ctx, -1, path, (size_t)(path_name(path) - path), path);
	if (fd < 0)
		return fd;
	rc = fstat(fd, &st) != 0 ? denied(ctx, path, errno)
				 : exchangeable(ctx, path, (size_t)(path_name(path) - path), &st);
	if (rc) {
		close(fd);
		return rc;
	}
	out->fd = fd;
	out->trusted = owner_trusted(st.st_uid) && !(st.st_mode & (S_IWGRP | S_IWOTH));
	return 0;
}

int folder_enter(struct speckv_ctx *ctx, const struct folder *in, const char *path,
	unsigned int flags, struct folder *out)
{
	const char *name = path_name(path);
	char words[SPACE_WORDS];
	struct stat st;
	int fd, rc = 0;

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	if (flags & FOLDER_MAKE) {
		bool made = mkdirat(in->fd, name, 0755) == 0;

		rc = made ? folder_flush(in) : errno != EEXIST ? -errno : 0;
		if (rc && made)
			unlinkat(in->fd, name, AT_REMOVEDIR);
		if (rc)
			return fail(ctx, rc, "cannot make the folder %s: %s", path,
				space_words(words, in->fd, 0, -rc));
	}
	fd = openat(in->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return denied(ctx, path, errno);
	if (fstat(fd, &st) != 0)
		rc = denied(ctx, path, errno);
	if (!rc && S_ISLNK(st.st_mode) && flags & FOLDER_LINK) {
		close(fd);
		fd = walk_path(ctx, in->fd, name, strlen(name), path);
		if (fd < 0)
			return fd;
	}
	if (!rc)
		rc = take_folder(ctx, fd, in->owner, path, flags, out);
	close(fd);
	return rc;
}

int folder_open(struct speckv_ctx *ctx, const char *path, unsigned int flags, struct folder *out)
{
	struct folder above;
	int rc;

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	if (!path_name(path)[0]) { /* ends with a slash, or is the root */
		int fd = walk_path(ctx, -1, path, strlen(path), path);

		rc = fd < 0 ? fd : take_folder(ctx, fd, NO_OWNER, path, flags, out);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	rc = folder_holding(ctx, path, &above);
	if (rc == -ENOENT)
		return fail(ctx, rc, "the parent folder of %s does not exist", path);
	if (!rc)
		rc = folder_enter(ctx, &above, path,
			flags & SPECKV_FOLDER_PLAIN ? flags : flags | FOLDER_LINK, out);
	folder_close(&above);
	return rc;
}

void folder_close(struct folder *folder)
{
	if (folder->fd >= 0)
		close(folder->fd);
	folder->fd = -1;
}

/* ---- files ---------------------------------------------------------------------------------- */

static int judge_file(struct speckv_ctx *ctx, const struct folder *in, const char *path,
	const struct stat *st, const struct file_rule *rule)
{
	if (!S_ISREG(st->st_mode) && !(rule->node && S_ISCHR(st->st_mode)))
		return refuse_kind(ctx, path, st, false);
	if (!owner_trusted(st->st_uid) && st->st_uid != in->owner && st->st_uid != rule->owner &&
		!(rule->group && group_shares(st)))
		return refuse_owner(ctx, path, st);
	if (st->st_mode & (S_IWGRP | S_IWOTH) & ~rule->writers)
		return refuse_writers(ctx, path, st);
	/* another user may have linked this name to a file of ours */
	if (!in->trusted && S_ISREG(st->st_mode) && st->st_nlink > 1)
		return fail(ctx, -EACCES,
			"%s has %lu names (hard links): remove the others, 'find / -xdev -samefile %s' lists them",
			path, (unsigned long)st->st_nlink, path);
	return 0;
}

int file_open(struct speckv_ctx *ctx, const struct folder *in, const char *path, int flags,
	mode_t mode, const struct file_rule *rule)
{
	const char *name = path_name(path);
	char words[SPACE_WORDS];
	struct stat st;
	int fd, rc;

	/* opening a device or a FIFO has side effects: check first, and again after the open */
	if (fstatat(in->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISREG(st.st_mode) && !(rule->node && S_ISCHR(st.st_mode)))
			return flags & O_EXCL ? -EEXIST : refuse_kind(ctx, path, &st, false);
	}
	fd = openat(in->fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, mode);
	if (fd < 0 && errno == EEXIST)
		return -EEXIST;
	if (fd < 0 && errno == EROFS)
		return fail(ctx, -EROFS, "%s is on a read-only file system", path);
	if (fd < 0 && errno == ENOSPC)
		return fail(ctx, -ENOSPC, "cannot make %s: %s", path,
			space_words(words, in->fd, 0, ENOSPC));
	if (fd < 0)
		return denied(ctx, path, errno);
	rc = fstat(fd, &st) != 0 ? denied(ctx, path, errno) : judge_file(ctx, in, path, &st, rule);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

bool file_same(const struct folder *in, const char *path, int fd)
{
	struct stat named, held;

	return fstat(fd, &held) == 0 &&
		fstatat(in->fd, path_name(path), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
		named.st_dev == held.st_dev && named.st_ino == held.st_ino;
}

int folder_flush(const struct folder *folder)
{
	/* EINVAL: the file system does not flush folders */
	int fd, rc = fsync(folder->fd) == 0 || errno == EINVAL ? 0 : -errno;

	if (rc != -EBADF)
		return rc;
	/* an O_PATH descriptor cannot be flushed */
	fd = openat(folder->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		/* write permission without read: cannot be flushed */
		return errno == EACCES ? 0 : -errno;
	rc = fsync(fd) == 0 || errno == EINVAL ? 0 : -errno;
	close(fd);
	return rc;
}

const char *space_words(char text[SPACE_WORDS], int fd, uint64_t want, int error)
{
	char a[32], b[32];
	struct statvfs vfs;

	if (error == EROFS)
		snprintf(text, SPACE_WORDS, "it is on a read-only file system");
	else if (error == ENOSPC && fd >= 0 && fstatvfs(fd, &vfs) == 0 && vfs.f_files &&
		vfs.f_favail == 0)
		snprintf(text, SPACE_WORDS,
			"its file system has no inodes left (0 of %llu): remove files there, or give it more ('mount -o remount,nr_inodes=')",
			(unsigned long long)vfs.f_files);
	else if (error == ENOSPC && want && fd >= 0 && fstatvfs(fd, &vfs) == 0)
		snprintf(text, SPACE_WORDS, "it needs %s, and its file system has %s free",
			human(a, want), human(b, (uint64_t)vfs.f_bavail * vfs.f_frsize));
	else
		snprintf(text, SPACE_WORDS, "%s", strerror(error));
	return text;
}
