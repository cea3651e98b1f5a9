/* SPDX-License-Identifier: MIT */
/* Checks of the C tests: one that fails says where and what, and ends its process. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition, ...)                                                           \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
			fprintf(stderr, __VA_ARGS__);                                   \
			fputc('\n', stderr);                                            \
			exit(1);                                                        \
		}                                                                       \
	} while (0)

#define HOLDS(condition) CHECK(condition, "not so")

#define EQUAL(a, b)                                                                               \
	CHECK((uint64_t)(a) == (uint64_t)(b), "0x%llx, expected 0x%llx", (unsigned long long)(a), \
		(unsigned long long)(b))

#endif
