# SPDX-License-Identifier: MIT
"""Computes calibrations from a model and documents, for `codec calibrate`. Needs torch."""
