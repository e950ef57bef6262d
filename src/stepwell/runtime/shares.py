"""Fair turns between functions: who is asked for first, and for how much of a room, by what each has been served and its weight.

It knows nothing of lanes: the engine shares a function's turns out among them. A function that had nothing to do comes back level
with those that waited meanwhile, so that idleness earns nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from stepwell.engine.inputs import Ask, Claimed

WeightOf = Callable[[str], int]


class Shares:
    """What the functions that share a room have been served, each in the units of its weight."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._turn = 0.0  # where who was served last stood before
        self._waiting: set[str] = set()

    def ask(self, function_ids: Iterable[str], room: int, weight_of: WeightOf) -> list[Ask]:
        """The functions that are to be asked for, those served least first, each with its share of the room."""
        served = self._served
        ids = list(function_ids)
        for function_id in ids:
            if function_id not in self._waiting:
                served[function_id] = max(served.get(function_id, self._turn), self._turn)
        self._waiting.update(ids)
        if len(ids) == 1:
            return [Ask(ids[0], room)]
        turns = [(served[function_id], function_id) for function_id in ids]
        heapq.heapify(turns)
        shares: dict[str, int] = {}
        for _ in range(room):
            turn, function_id = turns[0]
            shares[function_id] = shares.get(function_id, 0) + 1
            heapq.heapreplace(turns, (turn + 1 / weight_of(function_id), function_id))
        return [Ask(function_id, share) for function_id, share in shares.items()]

    def note(self, asks: Iterable[Ask], claimed: Claimed, weight_of: WeightOf) -> None:
        """What a claim has served of the functions that it asked for, and which of them have more."""
        for ask in asks:
            function_id = ask.function_id
            if count := claimed.calls.get(function_id, 0):
                weight = weight_of(function_id)
                served = self._served[function_id] = self._served[function_id] + count / weight
                self._turn = max(self._turn, served - 1 / weight)
            if function_id not in claimed.more:
                self._waiting.discard(function_id)
