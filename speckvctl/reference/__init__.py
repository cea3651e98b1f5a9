# SPDX-License-Identifier: MIT
"""A model that computes with caches as they come back: perplexity beside the raw cache. Needs torch.

For the commands `codec eval`, `codec compare`, `codec calibrate`, and for calibration/ and comparison/.
"""
