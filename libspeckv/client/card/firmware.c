// SPDX-License-Identifier: MIT
/*
 * <speckv/card.h>: transfer of a bundle into a card's flash. After an interruption the card reports
 * how far it got; the host keeps no state.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <speckv/card.h>

#include "card.h"
#include "base/base.h"

#define PIECE (64u << 10) /* unit of resumption: a card keeps only whole pieces */
#define RETRIES 3
#define LOCK_NAME "flash.lock"

_Static_assert((int)SPECKV_IMAGE_GOLDEN == SPECKV_SLOT_GOLDEN &&
		(int)SPECKV_IMAGE_B == SPECKV_SLOT_B &&
		(int)SPECKV_IMAGE_PREVIOUS == SPECKV_SLOT_PREVIOUS,
	"images are slots");
_Static_assert((int)SPECKV_ACTIVATED == SPECKV_ACTIVATION_DONE &&
		(int)SPECKV_ACTIVATED_NEEDS_RESCAN == SPECKV_ACTIVATION_NEEDS_RESCAN &&
		(int)SPECKV_ACTIVATED_NEEDS_POWER_CYCLE == SPECKV_ACTIVATION_NEEDS_POWER_CYCLE,
	"activations are the card's");

int speckv_admin_firmware_lock(struct speckv_admin *admin, unsigned int flags)
{
	bool dry = flags & SPECKV_LOCK_DRY_RUN;
	char path[SPECKV_PATH_BYTES], holder[128] = "", command[64], note[128];
	struct folder folder;
	int fd, rc;

	rc = card_admin_usable(admin->card);
	if (rc || admin->lock_fd >= 0)
		return rc;
	rc = transport_folder(admin->ctx, card_name(admin->card), path, &folder);
	if (rc)
		return rc;
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/" LOCK_NAME);
	fork_hold();
	/* 0600: a user who can read it can lock it */
	fd = file_open(admin->ctx, &folder, path, O_RDWR | (dry ? 0 : O_CREAT), 0600,
		&private_file);
	if (fd >= 0)
		fork_guard_add_held(&admin->lock, fd, NULL, 0);
	fork_let();
	folder_close(&folder);
	if (fd < 0)
		return dry && fd == -ENOENT ? 0 : fd;
	rc = !dry ? lock_byte(fd, 0) : lock_holder(fd, 0, NULL) ? -EAGAIN : 0;
	if (rc) {
		ssize_t got = pread(fd, holder, sizeof(holder) - 1, 0);

		fork_guard_release(&admin->lock);
		holder[got > 0 ? got : 0] = 0;
		if (rc != -EAGAIN)
			return fail(admin->ctx, rc, "%s: cannot lock %s: %s",
				card_name(admin->card), path, strerror(-rc));
		return fail(admin->ctx, -EBUSY, "%s is being flashed by process %s",
			card_name(admin->card), *holder ? holder : "unknown");
	}
	if (dry) {
		fork_guard_release(&admin->lock);
		return 0;
	}
	own_command(command);
	rc = snprintf(note, sizeof(note), "%d (%s)", (int)getpid(), command);
	if (ftruncate(fd, 0) != 0 || pwrite(fd, note, (size_t)rc, 0) != rc) {
		/* best effort: the lock holds even if the owner's name was not written */
	}
	admin->lock_fd = fd;
	return 0;
}

static int check_image(struct speckv_admin *admin, unsigned int image, uint64_t bytes)
{
	if (image != SPECKV_IMAGE_A && image != SPECKV_IMAGE_B)
		return fail(admin->ctx, -EINVAL, "%s: slot A or B can be written, not %u",
			card_name(admin->card), image);
	if (!bytes || bytes > UINT32_MAX)
		return fail(admin->ctx, -EINVAL, "a bundle must be 1 byte to 4 GiB");
	return 0;
}

static int check_lock(struct speckv_admin *admin)
{
	return admin->lock_fd >= 0 ? 0
				   : fail(admin->ctx, -EPERM, "%s: the firmware lock is not held",
					     card_name(admin->card));
}

static int explain(struct speckv_admin *admin, int rc, uint16_t status, unsigned int image)
{
	char slot = image == SPECKV_IMAGE_A ? 'A' : 'B';
	const char *name = card_name(admin->card);

	switch (status) {
	case SPECKV_STATUS_FW_SLOT:
		return fail(admin->ctx, rc,
			"%s: slot %c is running, or holds no image for it; 'speckvctl device show %s' shows its slots",
			name, slot, name);
	case SPECKV_STATUS_INVALID_OPCODE:
		return fail(admin->ctx, rc, "%s has no flash", name);
	case SPECKV_STATUS_INVALID:
		return fail(admin->ctx, rc, "%s: the bundle is larger than a slot", name);
	case SPECKV_STATUS_FW_FLASH:
		return fail(admin->ctx, rc,
			"%s: erasing or writing slot %c failed; the same command resumes there",
			name, slot);
	default:
		return rc;
	}
}

static int received(struct speckv_admin *admin, struct speckv_cmd_firmware *command, uint64_t *at)
{
	uint16_t status;
	int rc = card_admin_ask(admin->card, command, NULL, 0, NULL, 0, 0, at, &status);

	if (!rc && *at > command->total_bytes)
		return fail(admin->ctx, -EBADMSG,
			"%s reports more bytes received than the bundle has",
			card_name(admin->card));
	return rc ? explain(admin, rc, status, command->slot) : 0;
}

int speckv_admin_firmware_received(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, uint64_t *out)
{
	struct speckv_cmd_firmware command = { .opcode = SPECKV_ADMIN_FW_DOWNLOAD,
		.slot = (uint16_t)image,
		.total_bytes = (uint32_t)bytes };
	int rc = check_image(admin, image, bytes);

	if (!rc)
		rc = card_digest(admin->ctx, bundle, bytes, command.digest);
	return rc ? rc : received(admin, &command, out);
}

int speckv_admin_firmware_download(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, speckv_progress_cb progress, void *arg)
{
	struct speckv_cmd_firmware ask = { .opcode = SPECKV_ADMIN_FW_DOWNLOAD,
		.slot = (uint16_t)image,
		.total_bytes = (uint32_t)bytes },
				   piece;
	unsigned int retries = RETRIES;
	uint64_t at = 0;
	int rc = check_image(admin, image, bytes);

	if (!rc)
		rc = check_lock(admin);
	if (!rc)
		rc = card_digest(admin->ctx, bundle, bytes, ask.digest);
	if (!rc)
		rc = received(admin, &ask, &at);
	while (!rc && at < bytes) {
		uint64_t n = PIECE - at % PIECE;
		uint16_t status;

		if (progress && progress(at, bytes, arg))
			return fail(admin->ctx, -ECANCELED,
				"%s: stopped; the same command resumes there",
				card_name(admin->card));
		n = n < bytes - at ? n : bytes - at;
		piece = ask;
		piece.offset = (uint32_t)at;
		piece.data_crc32c = speckv_crc32c(0, (const uint8_t *)bundle + at, n);
		rc = card_admin_ask(admin->card, &piece, (const uint8_t *)bundle + at, n, NULL, 0,
			0, &at, &status);
		if (rc && status == SPECKV_STATUS_FW_FLASH && retries--)
			/* interrupted write: resume at the offset that the card reports */
			rc = received(admin, &ask, &at);
		else if (rc)
			rc = explain(admin, rc, status, image);
	}
	if (!rc && progress)
		progress(bytes, bytes, arg);
	return rc;
}

int speckv_admin_firmware_commit(struct speckv_admin *admin, unsigned int image, const void *bundle,
	uint64_t bytes, unsigned int flags)
{
	struct speckv_cmd_firmware command = { .opcode = SPECKV_ADMIN_FW_COMMIT,
		.slot = (uint16_t)image,
		.flags = flags & SPECKV_COMMIT_DRY_RUN ? SPECKV_FW_DRY_RUN : 0 };
	uint16_t status;
	int rc = check_image(admin, image, bytes);

	if (!rc && !(flags & SPECKV_COMMIT_DRY_RUN))
		rc = check_lock(admin);
	if (!rc)
		rc = card_digest(admin->ctx, bundle, bytes, command.digest);
	if (rc)
		return rc;
	rc = card_admin_ask(admin->card, &command, NULL, 0, NULL, 0,
		(card_identity(admin->card)->commit_timeout_ms + 1000ull) * 1000000u, NULL,
		&status);
	return status == SPECKV_STATUS_UNCHANGED ? 0 : explain(admin, rc, status, image);
}

int speckv_admin_firmware_activate(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, unsigned int flags, struct speckv_activation *out)
{
	struct speckv_cmd_firmware command = { .opcode = SPECKV_ADMIN_FW_ACTIVATE,
		.slot = (uint16_t)image,
		.flags = flags & SPECKV_ACTIVATE_DRY_RUN ? SPECKV_FW_DRY_RUN : 0 };
	const char *name = card_name(admin->card);
	uint64_t result = 0;
	uint16_t status;
	int rc = flags & SPECKV_ACTIVATE_DRY_RUN ? 0 : check_lock(admin);

	if (!rc && (image == SPECKV_IMAGE_A || image == SPECKV_IMAGE_B))
		rc = bundle
			? card_digest(admin->ctx, bundle, bytes, command.digest)
			: fail(admin->ctx, -EINVAL, "%s: name the bundle to activate a slot", name);
	if (rc)
		return rc;
	rc = card_admin_ask(admin->card, &command, NULL, 0, NULL, 0, 0, &result, &status);
	if (out)
		*out = (struct speckv_activation){ .need = result & SPECKV_ACTIVATION_MASK,
			.image = result >> SPECKV_ACTIVATION_SLOT_SHIFT & 0xff,
			.engine = !!(result & SPECKV_ACTIVATION_ENGINE) };
	switch (status) {
	case SPECKV_STATUS_UNCHANGED:
		return fail(admin->ctx, -EALREADY, "%s runs that image already", name);
	case SPECKV_STATUS_FW_DOWNGRADE:
		return fail(admin->ctx, rc,
			"%s: the security version of %s is below the card's, so it does not boot; 'speckvctl device show %s' shows both",
			name,
			image == SPECKV_IMAGE_A		  ? "slot A"
				: image == SPECKV_IMAGE_B ? "slot B"
							  : "the previous image",
			name);
	case SPECKV_STATUS_FW_SLOT:
		if (image == SPECKV_IMAGE_PREVIOUS)
			return fail(admin->ctx, -EALREADY,
				"%s: there is no previous image to roll back to; 'speckvctl device show %s' shows its slots",
				name, name);
		return rc;
	case SPECKV_STATUS_FW_FLASH:
		return fail(admin->ctx, rc,
			"%s: writing the boot record failed; the previous image still boots next; repeat the command",
			name);
	case SPECKV_STATUS_INVALID_OPCODE:
		return explain(admin, rc, status, image);
	default:
		return rc;
	}
}
