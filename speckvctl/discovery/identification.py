# SPDX-License-Identifier: MIT
"""PCI ids of cards, for Python: the values of kmod/include/uapi/linux/speckv.h; a test compares them.

PROVISIONAL: the vendor id is the FPGA maker's (Altera) and the device ids are not registered with it. They change,
there and here at once, before a card leaves a laboratory.
"""

from typing import Final

PCI_VENDOR: Final = 0x1172
PCI_DEVICE_CARD: Final = 0x5E4B
PCI_DEVICE_FACTORY: Final = 0x5E40
"""The factory personality: the maker's image, no engine in it; becomes PCI_DEVICE_CARD after the first programming."""

CLASS_NAME: Final = "speckv"
"""Name of the driver, of its device class, and of its nodes: /dev/speckvN."""

PCI_CLASS_CXL_MEMORY: Final = 0x050210
"""PCI class code of a CXL Type-3 memory device (CXL specification, not ours)."""
