// SPDX-License-Identifier: MIT
/* No two specifications share a key, and a key never depends on anything else. */
#include "harness.h"

static struct speckv_key derive(const struct speckv_key_spec *spec, const void *hash, size_t bytes)
{
	struct speckv_key key;

	EXPECT(0, speckv_key_derive(spec, hash, bytes, &key));
	return key;
}

int main(void)
{
	static const struct speckv_key_spec base = { .geometry = { .layers = 2,
							     .kv_heads = 1,
							     .head_dim = 64,
							     .tokens = 64,
							     .dtype = SPECKV_DTYPE_BF16 },
		.rope = "llama3",
		.scales = "",
		.parallel_size = 1,
		.tenant_secret = "s",
		.cache_salt = "t" };
	const uint8_t hash[32] = { 1, 2, 3 };
	struct speckv_key seen[64], key, again;
	struct speckv_key_spec spec;
	unsigned int n = 0;

	test_begin(20);
	seen[n++] = derive(&base, hash, 32);
	again = derive(&base, hash, 32);
	CHECK(memcmp(&seen[0], &again, 32) == 0, "the same again");

#define VARIANT(...)                                 \
	do {                                         \
		spec = base;                         \
		__VA_ARGS__;                         \
		seen[n++] = derive(&spec, hash, 32); \
	} while (0)
	VARIANT(spec.model_digest[31] = 1);
	VARIANT(spec.geometry.layers = 3);
	VARIANT(spec.geometry.kv_heads = 2);
	VARIANT(spec.geometry.head_dim = 128);
	VARIANT(spec.geometry.tokens = 128);
	VARIANT(spec.geometry.dtype = SPECKV_DTYPE_FP16);
	VARIANT(spec.rope = "llama");
	VARIANT(spec.scales = "1.0");
	VARIANT(spec.parallel_rank = 1);
	VARIANT(spec.parallel_size = 2);
	VARIANT(spec.group = 1);
	VARIANT(spec.tenant_secret = "other");
	VARIANT(spec.cache_salt = "other");
	/* one field's end is not another's beginning */
	VARIANT(spec.tenant_secret = "st"; spec.cache_salt = "");
	VARIANT(spec.tenant_secret = ""; spec.cache_salt = "st");
	VARIANT(spec.rope = "llama3x"; spec.scales = "");
	VARIANT(spec.rope = "llama3"; spec.scales = "x");
	VARIANT(spec.rope = ""; spec.scales = "llama3");
	VARIANT(spec.parallel_rank = 1; spec.parallel_size = 0);
	seen[n++] = derive(&base, hash, 31);
	seen[n++] = derive(&base, hash, 16);
	for (unsigned int i = 0; i < n; i++)
		for (unsigned int j = 0; j < i; j++)
			CHECK(memcmp(&seen[i], &seen[j], 32) != 0, "%u and %u share a key", i, j);

	spec = base;
	spec.scales = NULL; /* none is empty */
	key = derive(&spec, hash, 32);
	CHECK(memcmp(&key, &seen[0], 32) == 0, "NULL is empty");
	/* a short hash may collide, and would show one tenant another's KV */
	EXPECT(-EPERM, speckv_key_derive(&base, hash, 15, &key));
	EXPECT(-EPERM, speckv_key_derive(&base, hash, 8, &key));
	spec = base;
	spec.flags = 1;
	EXPECT(0, speckv_key_derive(&spec, hash, 8, &key));
	EXPECT(-EINVAL, speckv_key_derive(&base, hash, 0, &key));
	EXPECT(-EINVAL, speckv_key_derive(&base, NULL, 32, &key));
	EXPECT(-EINVAL, speckv_key_derive(NULL, hash, 32, &key));
	EXPECT(-EINVAL, speckv_key_derive(&base, hash, 32, NULL));
	test_end();
	return 0;
}
