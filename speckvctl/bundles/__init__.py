# SPDX-License-Identifier: MIT
"""Bundles on disk: files, keys, and the keys this machine trusts. The library verifies the bytes."""
