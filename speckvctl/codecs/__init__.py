# SPDX-License-Identifier: MIT
"""Evaluation of codecs and peers: ratio and loss, on tensors and by running a model on decoded KV."""
