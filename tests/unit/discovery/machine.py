# SPDX-License-Identifier: MIT
"""A simulated machine of recorded device trees; a separate program, because umockdev-wrapper replaces /sys and udev.

usage: umockdev-wrapper python machine.py SCRIPT.json

The script is a list of steps, each a list of strings (a number for "hear", device paths without /sys):
  load TREE [[DEVPATH...]]        plug in the devices of a tree, or only these
  attribute DEVPATH NAME VALUE    change a sysfs attribute, silently
  driver DEVPATH NAME             bind a driver, silently
  change DEVPATH                  send a "change" uevent
  remove DEVPATH                  unplug: the uevent, then the device goes
  listen                          start watching for hot plug
  hear N                          wait until N events were heard in all
  discover                        list what is there
Prints what each "discover" found and the events heard since "listen" as one JSON document. umockdev is used through its
C interface: its Python one needs GObject introspection, which a virtual environment does not have.
"""

import ctypes
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speckvctl.discovery import HotplugEvent, discover, watch

_QUIET_SECONDS = 0.4  # after the last step: time for a surplus event to arrive
_DEADLINE_SECONDS = 30.0


class _GError(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


class Testbed:
    def __init__(self) -> None:
        self._c = ctypes.CDLL("libumockdev.so.0")
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("new", pointer, []),
            ("add_from_string", ctypes.c_int, [pointer, text, pointer]),
            ("uevent", None, [pointer, text, text]),
            ("remove_device", None, [pointer, text]),
            ("set_attribute", None, [pointer, text, text, text]),
            ("set_attribute_link", None, [pointer, text, text, text]),
        ):
            function = getattr(self._c, f"umockdev_testbed_{name}")
            function.restype, function.argtypes = result, arguments
        self._bed = self._c.umockdev_testbed_new()

    def load(self, tree: str, only: list[str] | None = None) -> None:
        """Add the devices of a tree, or only those of these device paths; umockdev sends an "add" uevent for each."""
        lines = Path(tree).read_text(encoding="utf-8").splitlines()
        blocks = (
            "\n".join(line for line in lines if not line.startswith("#")).strip().split("\n\n")
        )  # umockdev has no comments
        wanted = [block for block in blocks if only is None or block.split("\n")[0].removeprefix("P: ") in only]
        if only is not None and len(wanted) != len(only):
            raise SystemExit(f"{tree}: holds only {len(wanted)} of {only}")
        error = ctypes.POINTER(_GError)()
        text = "\n\n".join(wanted) + "\n"
        if not self._c.umockdev_testbed_add_from_string(self._bed, text.encode(), ctypes.byref(error)):
            raise SystemExit(f"{tree}: {error.contents.message.decode()}")

    def uevent(self, devpath: str, action: str) -> None:
        self._c.umockdev_testbed_uevent(self._bed, f"/sys{devpath}".encode(), action.encode())

    def remove(self, devpath: str) -> None:
        # In the kernel's order: the uevent first, then the folder is removed.
        self.uevent(devpath, "remove")
        self._c.umockdev_testbed_remove_device(self._bed, f"/sys{devpath}".encode())

    def attribute(self, devpath: str, name: str, value: str) -> None:
        self._c.umockdev_testbed_set_attribute(self._bed, f"/sys{devpath}".encode(), name.encode(), value.encode())

    def driver(self, devpath: str, name: str) -> None:
        path = "../" * devpath.count("/") + f"bus/pci/drivers/{name}"
        self._c.umockdev_testbed_set_attribute_link(self._bed, f"/sys{devpath}".encode(), b"driver", path.encode())


class Listener:
    def __init__(self) -> None:
        self.heard: list[HotplugEvent] = []
        self._stop = threading.Event()
        events = watch(self._stop, source="udev", poll_seconds=0.05)
        self._thread = threading.Thread(target=self._collect, args=(events,))
        self._thread.start()

    def _collect(self, events: Iterator[HotplugEvent]) -> None:
        self.heard.extend(events)

    def wait(self, count: int) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while len(self.heard) < count and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def finish(self) -> list[HotplugEvent]:
        time.sleep(_QUIET_SECONDS)
        self._stop.set()
        self._thread.join()
        return self.heard


def main(script: str) -> None:
    bed = Testbed()
    listings: list[list[dict[str, Any]]] = []
    listener: Listener | None = None
    try:
        for step, *arguments in json.loads(Path(script).read_text(encoding="utf-8")):
            if step == "load":
                bed.load(*arguments)
            elif step == "attribute":
                bed.attribute(*arguments)
            elif step == "driver":
                bed.driver(*arguments)
            elif step == "listen":
                listener = Listener()
            elif step == "hear" and listener is not None:
                listener.wait(arguments[0])
            elif step == "discover":
                listings.append([dataclasses.asdict(found) for found in discover()])
            elif step == "remove":
                bed.remove(arguments[0])
            elif step == "change":
                bed.uevent(arguments[0], step)
            else:
                raise SystemExit(f"unknown step: {step}")
    finally:
        heard = [] if listener is None else listener.finish()
    json.dump({"listings": listings, "events": [dataclasses.asdict(event) for event in heard]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
