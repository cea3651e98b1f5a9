/* SPDX-License-Identifier: MIT */
/** speckv/speckv.h - all headers. Example: libspeckv/examples/quickstart.c. */
#ifndef SPECKV_SPECKV_H
#define SPECKV_SPECKV_H

#include <speckv/base.h>
#include <speckv/block.h>
#include <speckv/bundle.h>
#include <speckv/card.h>
#include <speckv/codec.h>
#include <speckv/device.h>
#include <speckv/folder.h>
#include <speckv/pool.h>
#include <speckv/predictor.h>

#endif
