# SPDX-License-Identifier: MIT
"""The live view. What is known at a tick (sampling, model), what keys do (keys, state), how it looks (columns, views),
and the terminal that holds them together (terminal).

A frame is made from the document of its tick and from nothing else, so that the screen and --json cannot disagree.
"""
