# SPDX-License-Identifier: MIT
"""Python functions as C callbacks. An exception cancels the C call and is raised again after its return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speckv._speckv import ffi, lib


class Relay:
    """Carries one Python function through one C call.

    function(*arguments) gets the C arguments without the trailing `void *arg`; a true result cancels.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._error: BaseException | None = None
        self.arg = ffi.new_handle(self)  # lives as long as this object, which the caller keeps until C returns

    def call(self, *arguments: Any) -> int:
        try:
            return 1 if self._function(*arguments) else 0
        except BaseException as exc:  # KeyboardInterrupt too: it must not be lost in C
            self._error = exc
            return 1

    def finish(self) -> None:
        """Raise the function's exception, if any."""
        if self._error is not None:
            raise self._error


def _relay_item(item: Any, arg: Any) -> int:
    return int(ffi.from_handle(arg).call(item))


def _relay_progress(done: int, total: int, arg: Any) -> int:
    return int(ffi.from_handle(arg).call(done, total))


# error=1: if the relay itself fails, C stops.
for _name in (
    "device",
    "selftest",
    "pool",
    "tenant",
    "client",
    "event",
    "card_event",
    "card_error",
    "card_slot",
    "card_grant",
):
    ffi.def_extern(name=f"speckv_{_name}_cb_python", error=1)(_relay_item)
ffi.def_extern(name="speckv_progress_cb_python", error=1)(_relay_progress)

DEVICE = lib.speckv_device_cb_python
SELFTEST = lib.speckv_selftest_cb_python
POOL = lib.speckv_pool_cb_python
TENANT = lib.speckv_tenant_cb_python
CLIENT = lib.speckv_client_cb_python
EVENT = lib.speckv_event_cb_python
CARD_EVENT = lib.speckv_card_event_cb_python
CARD_ERROR = lib.speckv_card_error_cb_python
CARD_GRANT = lib.speckv_card_grant_cb_python
CARD_SLOT = lib.speckv_card_slot_cb_python
PROGRESS = lib.speckv_progress_cb_python
