// SPDX-License-Identifier: MIT
/* SHA-256, for models and bundles. */
#include <openssl/evp.h>

#include "card/internal.h"

bool card_sha256(const void *bytes, uint64_t n, uint8_t out[32])
{
	return EVP_Digest(bytes, n, out, NULL, EVP_sha256(), NULL) == 1;
}
