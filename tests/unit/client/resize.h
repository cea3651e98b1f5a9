/* SPDX-License-Identifier: MIT */
/* The group of resize.c's tests that has a source of its own. */
#ifndef TEST_CLIENT_RESIZE_H
#define TEST_CLIENT_RESIZE_H

#include "client/admin/admin.h"

#include "harness.h"

/* Resizes that end before they are done. */
void resize_half_done(void);

#endif
