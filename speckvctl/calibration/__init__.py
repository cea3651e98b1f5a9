# SPDX-License-Identifier: MIT
"""Calibrations are made from a model and documents. Needs torch. For the command `codec calibrate`."""
