# SPDX-License-Identifier: MIT
"""The view's state and its changes by keys. Pools are identified by uuid; independent of terminals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from speckvctl import results


class View(StrEnum):
    OVERVIEW = "overview"
    POOL = "pool"
    HELP = "help"


class Tab(StrEnum):
    """Parts of the view of one pool."""

    SUMMARY = "summary"
    TENANTS = "tenants"
    CLIENTS = "clients"
    HISTOGRAMS = "histograms"
    EVENTS = "events"


class Window(StrEnum):
    """The period of hit shares and latencies."""

    NOW = "now"
    TOTAL = "total"


class Action(StrEnum):
    """Actions for the main loop after a key."""

    NOTHING = "nothing"
    DRAW = "draw"
    TICK = "tick"
    QUIT = "quit"


_Figure = int | float | None


def _of_interval(name: str) -> Callable[[results.TopPool, Window], _Figure]:
    return lambda top, window: getattr(top.interval, name) if top.interval else None


def hit_share(top: results.TopPool, window: Window) -> float | None:
    if window is Window.NOW:
        return top.interval.hit_share if top.interval else None
    return top.stats.hit_share if top.stats else None


def latency(top: results.TopPool, window: Window, operation: str) -> results.Latency | None:
    if window is Window.NOW:
        return top.interval.latency[operation] if top.interval else None
    return top.stats.latency[operation] if top.stats else None


def prefetching(top: results.TopPool, window: Window) -> results.Prefetching | None:
    if window is Window.NOW:
        return top.interval.prefetching if top.interval else None
    return top.prefetching


def _p99(top: results.TopPool, window: Window) -> int | None:
    found = latency(top, window, "get")
    return found.p99_ns if found else None


#: Orders, in the order of the key `s`: the largest first, but names from a to z.
ORDERS: dict[str, Callable[[results.TopPool, Window], _Figure]] = {
    "name": lambda top, window: None,
    "used": lambda top, window: top.pool.used_bytes,
    "raw": lambda top, window: top.pool.raw_bytes,
    "ratio": lambda top, window: top.pool.ratio,
    "hit": hit_share,
    "in": _of_interval("in_bytes_per_second"),
    "out": _of_interval("out_bytes_per_second"),
    "p99": _p99,
}


def ordered(pools: list[results.TopPool], order: str, backwards: bool, window: Window) -> list[results.TopPool]:
    """Sort by the figure, then by name; pools without one are last in both directions."""
    figure = ORDERS[order]
    named = sorted(pools, key=lambda top: (top.pool.name, top.pool.device), reverse=backwards and order == "name")
    if order == "name":
        return named
    known = [(value, top) for top in named if (value := figure(top, window)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=not backwards)
    return [top for _, top in known] + [top for top in named if figure(top, window) is None]


@dataclass
class Editor:
    """One line of text being typed."""

    text: str = ""
    at: int = 0

    def press(self, key: str) -> None:
        before, after = self.text[: self.at], self.text[self.at :]
        match key:
            case "left":
                self.at = max(0, self.at - 1)
            case "right":
                self.at = min(len(self.text), self.at + 1)
            case "home":
                self.at = 0
            case "end":
                self.at = len(self.text)
            case "backspace":
                self._set(before[:-1], after)
            case "delete":
                self._set(before, after[1:])
            case "ctrl-u":
                self._set("", after)
            case "ctrl-k":
                self._set(before, "")
            case "ctrl-w":
                kept = before.rstrip()
                self._set(kept[: kept.rfind(" ") + 1], after)
            case _ if len(key) == 1:
                self._set(before + key, after)

    def _set(self, before: str, after: str) -> None:
        self.text, self.at = before + after, len(before)


@dataclass
class State:
    order: str = "name"
    backwards: bool = False
    window: Window = Window.NOW
    filter: str = ""
    editor: Editor | None = None
    paused: bool = False
    view: View = View.OVERVIEW
    tab: Tab = Tab.SUMMARY
    selected: str | None = None
    """uuid of the pool that the cursor is on, or that is looked into."""
    offset: int = 0
    """First line shown of a view that is longer than the screen."""
    page: int = 10
    """Lines of a page; set by the renderer."""
    last_offset: int = 0
    """The offset that shows the last line; set by the renderer."""
    lines: int = 0
    """Lines of the view; set by the renderer."""
    _back: tuple[View, int] = (View.OVERVIEW, 0)

    # -- display

    def pools(self, document: results.Top) -> list[results.TopPool]:
        wanted = (self.editor.text if self.editor else self.filter).casefold()
        found = [top for top in document.pools if wanted in f"{top.pool.device}/{top.pool.name}".casefold()]
        return ordered(found, self.order, self.backwards, self.window)

    def cursor(self, pools: list[results.TopPool]) -> int | None:
        """Index of the selected pool; the first if it is gone."""
        for index, top in enumerate(pools):
            if top.pool.uuid == self.selected:
                return index
        return 0 if pools else None

    def inspected(self, document: results.Top) -> results.TopPool | None:
        return next((top for top in document.pools if top.pool.uuid == self.selected), None)

    # -- keys

    def press(self, key: str, document: results.Top) -> Action:
        if self.editor is not None:
            return self._edit(key)
        if self.view is View.HELP:
            if key in ("?", "escape", "enter", "q"):
                self.view, self.offset = self._back
                return Action.DRAW
            return self._scroll(key)
        match key:
            case "q" | "ctrl-c":
                return Action.QUIT
            case "?" | "h":
                self._back, self.view, self.offset = (self.view, self.offset), View.HELP, 0
            case "p":
                self.paused = not self.paused
                return Action.DRAW if self.paused else Action.TICK
            case " ":
                return Action.TICK
            case "t":
                self.window = Window.TOTAL if self.window is Window.NOW else Window.NOW
            case _:
                if self.view is View.POOL:
                    return self._press_in_pool(key)
                return self._press_in_overview(key, document)
        return Action.DRAW

    def _press_in_overview(self, key: str, document: results.Top) -> Action:
        pools = self.pools(document)
        at = self.cursor(pools)
        match key:
            case "s":
                names = list(ORDERS)
                self.order = names[(names.index(self.order) + 1) % len(names)]
            case "r" | "S":
                self.backwards = not self.backwards
            case "/":
                self.editor = Editor(self.filter, len(self.filter))
            case "escape":
                self.filter = ""
            case "enter" | "right" if at is not None:
                self.selected = pools[at].pool.uuid
                self.view, self.tab, self.offset = View.POOL, Tab.SUMMARY, 0
            case _ if at is not None and (to := self._moved(key, at, len(pools))) is not None:
                self.selected = pools[to].pool.uuid
            case _:
                return Action.NOTHING
        return Action.DRAW

    def _press_in_pool(self, key: str) -> Action:
        tabs = list(Tab)
        at = tabs.index(self.tab)
        match key:
            case "escape" | "backspace":
                self.view, self.offset = View.OVERVIEW, 0
            case "right" | "tab":
                self.tab, self.offset = tabs[(at + 1) % len(tabs)], 0
            case "left" | "back-tab":
                self.tab, self.offset = tabs[at - 1], 0
            case _ if key.isdecimal() and 1 <= int(key) <= len(tabs):
                self.tab, self.offset = tabs[int(key) - 1], 0
            case _:
                return self._scroll(key)
        return Action.DRAW

    def _moved(self, key: str, at: int, count: int) -> int | None:
        """The new cursor or offset after a key; None: not a movement key."""
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -self.page, "page-down": self.page}
        ends = {"home": 0, "g": 0, "end": count - 1, "G": count - 1}
        to = ends.get(key, at + steps[key] if key in steps else None)
        return None if to is None else max(0, min(count - 1, to))

    def _scroll(self, key: str) -> Action:
        to = self._moved(key, min(self.offset, self.last_offset), self.last_offset + 1)
        if to is None:
            return Action.NOTHING
        self.offset = to
        return Action.DRAW

    def _edit(self, key: str) -> Action:
        assert self.editor is not None
        if key == "enter":
            self.filter, self.editor = self.editor.text.strip(), None
        elif key in ("escape", "ctrl-c"):
            self.editor = None
        else:
            self.editor.press(key)
        return Action.DRAW
