# SPDX-License-Identifier: MIT
"""Codecs compared with peers, for `codec compare`."""
