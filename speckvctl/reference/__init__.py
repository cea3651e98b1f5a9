# SPDX-License-Identifier: MIT
"""Runs a model on decoded KV: perplexity compared with the raw cache. Needs torch.

For the commands `codec eval`, `codec compare`, `codec calibrate`, and for calibration/ and comparison/.
"""
