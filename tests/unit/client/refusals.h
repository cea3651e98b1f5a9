/* SPDX-License-Identifier: MIT */
/* The group of refusals.c's tests that has a source of its own. */
#ifndef TEST_CLIENT_REFUSALS_H
#define TEST_CLIENT_REFUSALS_H

#include "client/admin/admin.h"

#include "harness.h"

/* A dry run of a resize leaves a pool's bytes. */
void refusals_dry_run(struct speckv_device *dev);
/* Plans and dry runs on media of every kind, none of which is in use. */
void refusals_on_media(void);

#endif
