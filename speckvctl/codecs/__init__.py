# SPDX-License-Identifier: MIT
"""Codecs judged: what a mode or a peer saves, and what it costs, on tensors and by really running a model on them."""
