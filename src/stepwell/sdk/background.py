"""An event loop in a thread of its own, one for the process: what frameworks without one run async functions in."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stepwell.errors import UsageError

R = TypeVar("R")


class Background:
    """A loop that runs until the process ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.pid = os.getpid()
        threading.Thread(target=self._serve, name="stepwell-background", daemon=True).start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, make: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a coroutine there, and wait for its result here."""
        if asyncio._get_running_loop() is self.loop:
            raise UsageError("this would wait for the loop that it runs in: await it instead")
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result()


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """The process's own; made when first needed, and anew in a forked process, whose parent's threads are not there."""
    global _background
    with _lock:
        if _background is None or _background.pid != os.getpid():
            _background = Background()
        return _background


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
