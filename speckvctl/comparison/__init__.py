# SPDX-License-Identifier: MIT
"""Codecs beside their peers. For the command `codec compare` alone."""
