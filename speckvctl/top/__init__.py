# SPDX-License-Identifier: MIT
"""The live view: samples and ticks (sampling, model), keys (keys, state), layout (columns, views) and the main loop
(terminal).

A frame is rendered from the document of its tick alone, so that the screen and --json cannot disagree.
"""
