# SPDX-License-Identifier: MIT
"""Runs a model on decoded KV: its loss compared with that on the raw cache. Needs torch and transformers.

For the commands `codec eval`, `codec compare`, `codec calibrate`, and for calibration/ and comparison/.
"""
