"""Alarms on a node: those that have gone off wait for their turn here, are given to their actors, and their ends are told.

How an alarm comes to its actor is not known here (`ring`), nor what it does there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from stepwell.engine.inputs import AnyInput
from stepwell.engine.inputs_actors import AlarmAnswered
from stepwell.primitives.actor import AlarmFired
from stepwell.protocol.actors import ActorFailed, ActorFailure, Outcome
from stepwell.protocol.codec import Json, canonical
from stepwell.store.base import Reader

ALARMS_MAX = 1000
"""Alarms that run at a time; the others wait for their turn."""

RETURNED_MAX = 100
"""Alarms that one comparison has go off again."""

LOST = "ActorLost"
"""The name of a failure that says that the actor's process was ended on purpose."""

Submit = Callable[[AnyInput], "asyncio.Future[object]"]


class Alarms:
    """The alarms of a node's actors. `ring` gives one to its actor, and nothing back where there are no actors of its kind."""

    def __init__(
        self, submit: Submit, reader: Callable[[], Reader], holder: str, ring: Callable[[AlarmFired], asyncio.Future[bytes] | None]
    ) -> None:
        self._submit, self._reader, self._holder, self._ring = submit, reader, holder, ring
        self._fired: deque[AlarmFired] = deque()
        self._orphans: dict[str, list[AlarmFired]] = {}
        self._firing: set[tuple[str, str, int]] = set()
        self._unknown: set[tuple[str, str, int]] = set()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Those that have gone off and wait for their turn, or for actors of their kind."""
        return len(self._fired) + sum(map(len, self._orphans.values()))

    def fire(self, fired: AlarmFired) -> None:
        """One goes off."""
        self._fired.append(fired)
        self.go_on()

    def served(self, kind: str) -> None:
        """There are actors of this kind now; the next `go_on` comes to its alarms too."""
        self._fired.extend(self._orphans.pop(kind, ()))

    def go_on(self) -> None:
        """As many as may run at a time are given to their actors."""
        while self._fired and len(self._firing) < ALARMS_MAX:
            fired = self._fired.popleft()
            future = self._ring(fired)
            if future is None:
                self._orphans.setdefault(fired.kind, []).append(fired)
            else:
                self._firing.add(mark(fired))
                future.add_done_callback(lambda future, fired=fired: self._ended(fired, future))  # type: ignore[misc]

    def stop(self) -> None:
        """Tell of no more ends: what runs goes off again in the node's next epoch."""
        self._stopped = True

    def _ended(self, fired: AlarmFired, future: asyncio.Future[bytes]) -> None:
        self._firing.discard(mark(fired))
        outcome: Outcome = "ok"
        told: Json | None = None
        if future.cancelled() or (error := future.exception()) is None:
            pass
        elif isinstance(error, ActorFailed) and error.failure.name != LOST:
            outcome, told = "failed", error_of(error.failure)
        else:
            outcome = "lost"
        if not self._stopped:
            forget(self._submit(AlarmAnswered(fired.kind, fired.name, fired.firing, outcome, told)))
            self.go_on()

    async def compare(self) -> None:
        """Those that are marked as running here, and are in nobody's hand twice in a row: the commit's answer was lost. Once more."""
        here = self._firing | {mark(fired) for fired in self._fired}
        here |= {mark(fired) for orphans in self._orphans.values() for fired in orphans}
        missing = set(await self._reader().held_alarms(self._holder)) - here - self._firing
        lost = sorted(missing & self._unknown)[:RETURNED_MAX]
        self._unknown = missing
        for kind, name, firing in lost:
            forget(self._submit(AlarmAnswered(kind, name, firing, "lost")))


def mark(fired: AlarmFired) -> tuple[str, str, int]:
    """What tells this firing from all others."""
    return fired.kind, fired.name, fired.firing


def error_of(failure: ActorFailure) -> Json:
    """What is kept of a failed alarm."""
    return canonical({"message": failure.message, "name": failure.name, "stack": failure.stack})


def forget(future: asyncio.Future[object]) -> None:
    """Nobody waits for it: what went wrong has been told by the store's own means."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
