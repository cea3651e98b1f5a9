# SPDX-License-Identifier: MIT
"""Bundles on disk: the files, the keys beside them, and which keys this machine trusts. The library judges bytes."""
