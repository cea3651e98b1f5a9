# SPDX-License-Identifier: MIT
"""The return predictor: features of a session's turns, baselines, training, model files and their evaluation."""
