/* SPDX-License-Identifier: MIT */
/* When a node of a trace belongs to no session. For this folder. */
#ifndef SPECKV_PREDICTOR_TREE_H
#define SPECKV_PREDICTOR_TREE_H

/* A node with this many distinct successors counts as shared by sessions, as a system prompt is. */
#define PREDICTOR_SHARED 3

#endif
