# SPDX-License-Identifier: MIT
"""The test key: its secret half is public, for signing bundles for emulated cards. Nothing else may trust it."""

from __future__ import annotations

from typing import Final

#: The public key in bitstreams/keys/test.pub; a test compares them.
TEST_PUBLIC_KEY: Final = bytes.fromhex("cf8717975401389dfd168a0315235e2386d5d0bcb6aac773ad803b5c0d183d64")
