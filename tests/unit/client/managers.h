/* SPDX-License-Identifier: MIT */
/* The groups of managers.c's tests that have a source of their own. */
#ifndef TEST_CLIENT_MANAGERS_H
#define TEST_CLIENT_MANAGERS_H

#include "client/admin/admin.h"

#include "harness.h"

/* What another process does just before a manager has its lock. */
extern void (*managers_before_format)(void);

/* Devices that are made and closed while others make, open or close them. */
void managers_make_devices(void);
/* What fork() does to handles and locks, of the device's pool `pool`. */
void managers_fork(struct speckv_device *dev);

#endif
