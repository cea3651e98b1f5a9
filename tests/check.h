/* SPDX-License-Identifier: MIT */
/*
 * Checks of the C tests: one that fails says where and what, and ends its process. Before its
 * include a test may define how to end (CHECK_FAILED), and what HOLDS says (CHECK_REASON).
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef CHECK_FAILED
#define CHECK_FAILED() exit(1)
#endif
#ifndef CHECK_REASON
#define CHECK_REASON() "not so"
#endif

#define CHECK(condition, ...)                                                                  \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(stderr, "%s:%d: [%d] %s: ", __FILE__, __LINE__, (int)getpid(), \
				#condition);                                                   \
			fprintf(stderr, __VA_ARGS__);                                          \
			fputc('\n', stderr);                                                   \
			CHECK_FAILED();                                                        \
		}                                                                              \
	} while (0)

#define HOLDS(condition) CHECK(condition, "%s", CHECK_REASON())

#define EQUAL(a, b)                                                                               \
	CHECK((uint64_t)(a) == (uint64_t)(b), "0x%llx, expected 0x%llx", (unsigned long long)(a), \
		(unsigned long long)(b))

#endif
