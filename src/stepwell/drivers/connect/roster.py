"""Which worker gets a call: of those that take calls of the app, one of its newest version, with the most free room.

Each app has a heap of its workers. An entry that is no longer true is passed over, and put right, when it comes up: a call costs the
logarithm of the app's workers, however many there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from itertools import count

from stepwell.protocol.connect import CONCURRENCY_DEFAULT

UNLIMITED = 1_000_000
"""The room of a worker that sets itself no limit."""

_Entry = tuple[int, int, int, "Worker"]


class Worker:
    """A connection as calls see it. `ranks` says, by app, how new its version is: more is newer."""

    __slots__ = ("capacity", "connection_id", "doubted", "in_hand", "instance_id", "ranks", "ready")

    def __init__(self, connection_id: str, instance_id: str, ranks: Mapping[str, int], most: int | None) -> None:
        self.connection_id, self.instance_id, self.ranks = connection_id, instance_id, dict(ranks)
        self.capacity = CONCURRENCY_DEFAULT if most is None else most or UNLIMITED
        self.in_hand = 0
        self.ready = False
        self.doubted = False

    @property
    def free(self) -> int:
        """How many more calls it takes now."""
        return max(0, self.capacity - self.in_hand) if self.ready and not self.doubted else 0


class Roster:
    """All workers."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._free: dict[str, int] = {}
        self._heaps: dict[str, list[_Entry]] = {}
        self._counted: dict[str, int] = {}
        self._order = count()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def get(self, connection_id: str) -> Worker | None:
        """The worker of a connection."""
        return self._workers.get(connection_id)

    def free(self, app: str) -> int:
        """How many more calls the app's workers take now."""
        return self._free.get(app, 0)

    def add(self, worker: Worker) -> None:
        """A worker has come; it is not ready yet."""
        self._workers[worker.connection_id] = worker
        self.changed(worker)

    def remove(self, connection_id: str) -> Worker | None:
        """It is gone."""
        worker = self._workers.get(connection_id)
        if worker is not None:
            worker.ready = False
            self.changed(worker)
            del self._workers[connection_id], self._counted[connection_id]
        return worker

    def changed(self, worker: Worker) -> None:
        """Its room is not what it was: take that in."""
        if worker.connection_id not in self._workers:
            return
        free = worker.free
        before = self._counted.get(worker.connection_id, 0)
        self._counted[worker.connection_id] = free
        for app, rank in worker.ranks.items():
            self._free[app] = self._free.get(app, 0) + free - before
            if free and free != before:
                self._push(app, rank, free, worker)

    def take(self, app: str, without: Collection[str] = ()) -> Worker | None:
        """The worker for one more call, counted as its own; none of the connections in `without`."""
        heap = self._heaps.get(app, [])
        passed: list[_Entry] = []
        found = None
        while heap:
            entry = heapq.heappop(heap)
            worker = entry[3]
            if self._workers.get(worker.connection_id) is not worker or worker.free == 0 or worker.free != -entry[1]:
                continue
            if worker.connection_id in without:
                passed.append(entry)
                continue
            found = worker
            break
        for entry in passed:
            heapq.heappush(heap, entry)
        if found is not None:
            found.in_hand += 1
            self.changed(found)
        return found

    def give_back(self, connection_id: str) -> Worker | None:
        """A worker has one call fewer in hand."""
        worker = self._workers.get(connection_id)
        if worker is not None:
            worker.in_hand -= 1
            self.changed(worker)
        return worker

    def _push(self, app: str, rank: int, free: int, worker: Worker) -> None:
        heap = self._heaps.setdefault(app, [])
        heapq.heappush(heap, (-rank, -free, next(self._order), worker))
        if len(heap) > 64 + 8 * len(self._workers):
            # Most of it is no longer true: keep one entry of each worker.
            kept = {entry[3].connection_id: entry for entry in heap if entry[3].free == -entry[1]}
            heap[:] = kept.values()
            heapq.heapify(heap)
