"""What one transition has in hand: the facts it decides by, the runs it advances, and the rows that they share, each written once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.engine.flow.ledger import Ledger
from stepwell.engine.lanes import Lanes
from stepwell.engine.registry import Registry
from stepwell.engine.topics import Topics
from stepwell.engine.view import View

if TYPE_CHECKING:
    from stepwell.engine.advance import Advance


class Decision:
    """One transition's work. `advances` holds the runs that it moves on or ends (`advance.advance_of`); `ending.settle` closes it."""

    __slots__ = ("advances", "lanes", "ledger", "now_ms", "registry", "topics", "view")

    def __init__(self, registry: Registry, view: View, now_ms: int) -> None:
        self.registry, self.view, self.now_ms = registry, view, now_ms
        self.advances: dict[str, Advance] = {}
        self.lanes = Lanes(registry, view, now_ms)
        self.ledger = Ledger(view)
        self.topics = Topics(view)
