"""Bodies of hot runs: the events and memoised steps that call requests are made of, kept as they were committed.

A run that began in this process is here whole; another one is read once, when it is called. The oldest go when the bytes are too
many. The store stays the truth: whatever is not here is read from it.
"""

from __future__ import annotations

from collections import OrderedDict

from stepwell.engine.events import run_data, wire
from stepwell.engine.model import DeferStatus, EventRow, Json, Run, Step
from stepwell.engine.view import Changes
from stepwell.protocol.codec import canonical
from stepwell.protocol.events import Event
from stepwell.store.base import Reader

BYTES_MAX = 64 * 1024 * 1024


class RunBodies:
    """One run's events and steps. `stack` holds the step ids in the order in which they finished.

    `inputs` are those that a rerun gives steps in place of their own, `defers` says of what the run defers whether it can be taken back.
    """

    __slots__ = ("defers", "events", "inputs", "size", "stack", "steps")

    def __init__(self, events: tuple[Json, ...], inputs: dict[str, Json] | None = None) -> None:
        self.events = events
        self.inputs = inputs or {}
        self.steps: dict[str, Json] = {}
        self.stack: list[str] = []
        self.defers: dict[str, bool] = {}
        self.size = sum(map(len, events)) + sum(map(len, self.inputs.values())) + 200

    def sent(self) -> dict[str, Json]:
        """What calls are sent of the steps: the memos of those that are finished, the new inputs of those that are not."""
        return {**self.inputs, **self.steps} if self.inputs else dict(self.steps)

    def add(self, step_id: str, memo: Json) -> int:
        """A finished step; says how much larger this is now."""
        self.steps[step_id] = memo
        self.stack.append(step_id)
        self.size += len(memo) + 100
        return len(memo) + 100


class Bodies:
    """A bounded cache over a reader."""

    def __init__(self, reader: Reader, bytes_max: int = BYTES_MAX) -> None:
        self._reader, self._bytes_max = reader, bytes_max
        self._runs: OrderedDict[str, RunBodies] = OrderedDict()
        self._bytes = 0

    def note(self, changes: Changes) -> None:
        """Take in what a commit began and finished."""
        tables = changes.tables
        if "runs" in tables and tables["runs"].inserted:
            events: dict[str, EventRow] = {row.id: row for row in tables["events"].inserted} if "events" in tables else {}
            for run in tables["runs"].inserted:
                rows = [events.get(event_id) for event_id in run.event_ids]
                if run.ended_ms is None and all(row is not None and row.run_id is None for row in rows):
                    self._keep(run.id, RunBodies(tuple(wire(row) for row in rows if row is not None)))
        if "steps" in tables:
            steps: list[Step] = [*tables["steps"].inserted, *tables["steps"].updated]
            if len(steps) > 1:
                steps.sort(key=lambda step: step.position)
            for step in steps:
                if step.memo is not None and (bodies := self._runs.get(step.run_id)) is not None and step.id not in bodies.steps:
                    self._bytes += bodies.add(step.id, step.memo)
            self._shrink()
        if "defers" in tables:
            for one in (*tables["defers"].inserted, *tables["defers"].updated):
                if (bodies := self._runs.get(one.run_id)) is not None:
                    bodies.defers[one.id] = one.status is DeferStatus.AFTER_RUN

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        bodies = self._runs.pop(run_id, None)
        if bodies is not None:
            self._bytes -= bodies.size

    async def of(self, run: Run) -> RunBodies:
        """The run's bodies, from here or from the store."""
        bodies = self._runs.get(run.id)
        if bodies is not None:
            self._runs.move_to_end(run.id)
            return bodies
        events = await event_bodies(self._reader, run)
        bodies = RunBodies(events, await edited_inputs(self._reader, run))
        finished = [step for step in await self._reader.steps(run.id) if step.memo is not None]
        for step in sorted(finished, key=lambda step: step.position):
            assert step.memo is not None
            bodies.add(step.id, step.memo)
        if run.defers:
            bodies.defers = {one.id: one.status is DeferStatus.AFTER_RUN for one in await self._reader.defers_of(run.id)}
        # A commit may have come between the two reads: what it finished is known here already, or will be read next time.
        self._keep(run.id, bodies)
        return bodies

    def _keep(self, run_id: str, bodies: RunBodies) -> None:
        self._runs[run_id] = bodies
        self._bytes += bodies.size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._bytes_max and self._runs:
            _, bodies = self._runs.popitem(last=False)
            self._bytes -= bodies.size


async def edited_inputs(reader: Reader, run: Run) -> dict[str, Json]:
    """What the run's steps are sent as their input in place of their own, by step (§4.3); only reruns have any."""
    if run.cause != "rerun":
        return {}
    return {row.step_id: b'{"input":' + row.input + b"}" for row in await reader.inputs_of(run.id)}


async def event_bodies(reader: Reader, run: Run) -> tuple[Json, ...]:
    """The run's events as functions see them."""
    return tuple([await event_wire(reader, row) for row in await reader.events_by_id(run.event_ids)])


async def event_wire(reader: Reader, row: EventRow) -> Json:
    """A stored event as functions see it; a lifecycle event's data is built from its run (§6)."""
    if row.run_id is None:
        return wire(row)
    return (await told(reader, row)).wire()


async def told(reader: Reader, row: EventRow) -> Event:
    """A lifecycle event with its data."""
    data: Json = canonical({})
    run = await reader.run(row.run_id) if row.run_id is not None else None
    if run is not None:
        events = [wire(event) for event in await reader.events_by_id(run.event_ids)]
        data = run_data(run, events)
    return Event(
        internal_id=row.id,
        id=row.key,
        name=row.name,
        data=data,
        user=row.user,
        ts=row.ts,
        v=row.v,
        meta=row.meta,
        received_ms=row.received_ms,
    )
