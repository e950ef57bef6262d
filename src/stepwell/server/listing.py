"""Pages of runs and events by conditions: ways through the store, filtered on the way, with bounds on how much one page looks at.

A page that has looked at as much as it may ends early and says where the next one goes on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from stepwell.engine.expression import compile_expression
from stepwell.engine.expression.expression import Expression
from stepwell.engine.model import EventRow, Run, RunStatus
from stepwell.errors import ProtocolError
from stepwell.protocol.codec import decode
from stepwell.runtime.bodies import event_wire
from stepwell.server.shapes import is_told
from stepwell.server.trace.outputs import output_of_run
from stepwell.store.base import EventPlace, Reader, RunOrder, RunPlace, RunWalk

CHUNK = 250
"""Places read at a time."""
WHOLE_AT_ONCE = 50
"""Rows read whole at a time."""
LOOKED_MAX = 10_000
"""Places that one page or count looks at."""
BODIES_LOOKED_MAX = 2_000
"""Runs or events that one page or count reads whole, where an expression has to be asked."""

P = TypeVar("P")
T = TypeVar("T")
Place = tuple[int, str]
Places = list[tuple[Place, P]]


class Page(msgspec.Struct, Generic[T]):
    """What was found, each with its place, and whether there may be more behind `end`."""

    found: list[tuple[Place, T]]
    end: Place | None
    more: bool


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are wanted. `times` is what the span of time is about; `query` are lines of expressions, which all have to hold."""

    times: RunOrder = RunOrder.MADE
    from_ms: int = 0
    until_ms: int = 1 << 47
    statuses: frozenset[RunStatus] = frozenset()
    function_ids: frozenset[str] | None = None
    query: tuple[Expression, ...] = ()


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted. `own` says that the server's own ones are, too."""

    from_ms: int = 0
    until_ms: int = 1 << 47
    names: frozenset[str] = frozenset()
    own: bool = False
    query: tuple[Expression, ...] = ()


def conditions(text: str | None, variables: tuple[str, ...]) -> tuple[Expression, ...]:
    """The expressions of a query, one a line. Raises `ExpressionError`."""
    return tuple(compile_expression(line.strip(), variables) for line in (text or "").splitlines() if line.strip())


def cursor_of(place: Place) -> str:
    """The place as clients are given it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def parse_cursor(text: str | None) -> Place | None:
    """The place of a cursor. Raises `ProtocolError` for what is none."""
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=tuple[int, str])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise ProtocolError(f"{text[:80]!r} is no cursor: take one of an earlier answer") from None


async def find_runs(
    reader: Reader, wanted: RunFilter, *, limit: int, order: RunOrder = RunOrder.MADE, descending: bool = True, after: Place | None = None
) -> Page[Run]:
    """A page of runs."""
    timed = order is wanted.times

    async def whole(places: Sequence[RunPlace]) -> list[Run | None]:
        return await _runs(reader, places, wanted, timed)

    way = _run_way(reader, wanted, order, descending)
    return await _page(way, _may_be_run(wanted), whole, after=after, limit=limit, bodies=bool(wanted.query) or not timed)


async def count_runs(reader: Reader, wanted: RunFilter, order: RunOrder) -> int:
    """How many runs there are, as far as one count looks."""
    timed = order is wanted.times

    async def whole(places: Sequence[RunPlace]) -> list[Any]:
        if wanted.query or not timed:
            return await _runs(reader, places, wanted, timed)
        skipped = {run.id: run for run in await reader.runs_by_id([place.id for place in places if place.status is RunStatus.SKIPPED])}
        return [place if place.id not in skipped or is_told(skipped[place.id]) else None for place in places]

    way = _run_way(reader, wanted, order, True)
    page = await _page(way, _may_be_run(wanted), whole, after=None, limit=LOOKED_MAX, bodies=bool(wanted.query) or not timed)
    return len(page.found)


def _run_way(reader: Reader, wanted: RunFilter, order: RunOrder, descending: bool) -> Callable[[Place | None], Awaitable[Places[RunPlace]]]:
    timed = order is wanted.times
    one = next(iter(wanted.function_ids)) if wanted.function_ids is not None and len(wanted.function_ids) == 1 else None
    walk = RunWalk(
        order=order,
        descending=descending,
        from_ms=wanted.from_ms if timed else 0,
        until_ms=wanted.until_ms if timed else 1 << 47,
        function_id=one,
    )

    async def chunk(after: Place | None) -> Places[RunPlace]:
        places = await reader.walk_runs(msgspec.structs.replace(walk, after=after), CHUNK)
        return [((place.at_ms, place.id), place) for place in places]

    return chunk


def _may_be_run(wanted: RunFilter) -> Callable[[RunPlace], bool]:
    statuses, functions = wanted.statuses, wanted.function_ids
    return lambda place: (not statuses or place.status in statuses) and (functions is None or place.function_id in functions)


async def _runs(reader: Reader, places: Sequence[RunPlace], wanted: RunFilter, timed: bool) -> list[Run | None]:
    """The runs of these places that are wanted. `timed`: their time is known to fit."""
    runs = {run.id: run for run in await reader.runs_by_id([place.id for place in places]) if is_told(run)}
    if not timed:
        runs = {run.id: run for run in runs.values() if _fits(run, wanted)}
    if wanted.query:
        ids = [event_id for run in runs.values() for event_id in run.event_ids]
        events = {row.id: row for row in await reader.events_by_id(ids)}
        runs = {run.id: run for run in runs.values() if await _holds(reader, run, events, wanted.query)}
    return [runs.get(place.id) for place in places]


def _fits(run: Run, wanted: RunFilter) -> bool:
    at_ms = {RunOrder.MADE: run.created_ms, RunOrder.STARTED: run.started_ms, RunOrder.ENDED: run.ended_ms}[wanted.times]
    return at_ms is not None and wanted.from_ms <= at_ms < wanted.until_ms


async def _holds(reader: Reader, run: Run, events: dict[str, EventRow], query: tuple[Expression, ...]) -> bool:
    """Whether all expressions hold of the run with one of its events."""
    output = output_of_run(run)
    known: dict[str, Any] = {
        "output": None if output.data is None else decode(output.data),
        "error": None if output.error is None else decode(output.error),
    }
    for event_id in run.event_ids:
        event = await shown_event(reader, events[event_id]) if event_id in events else {}
        if all(expression.is_true({**known, "event": event}) for expression in query):
            return True
    return False


async def shown_event(reader: Reader, row: EventRow) -> dict[str, Any]:
    """An event as expressions see it."""
    event: dict[str, Any] = decode(await event_wire(reader, row))
    return {**event, "ts": float(row.ts)}


async def find_events(reader: Reader, wanted: EventFilter, *, limit: int, after: Place | None = None) -> Page[EventRow]:
    """A page of events, newest first."""

    async def whole(places: Sequence[EventPlace]) -> list[EventRow | None]:
        return await _events(reader, places, wanted)

    return await _page(_event_way(reader), _may_be_event(wanted), whole, after=after, limit=limit, bodies=bool(wanted.query))


async def count_events(reader: Reader, wanted: EventFilter) -> int:
    """How many events there are, as far as one count looks."""

    async def whole(places: Sequence[EventPlace]) -> list[Any]:
        return await _events(reader, places, wanted) if wanted.query else list(places)

    page = await _page(_event_way(reader), _may_be_event(wanted), whole, after=None, limit=LOOKED_MAX, bodies=bool(wanted.query))
    return len(page.found)


def _event_way(reader: Reader) -> Callable[[Place | None], Awaitable[Places[EventPlace]]]:
    async def chunk(after: Place | None) -> Places[EventPlace]:
        places = await reader.walk_events(CHUNK, None if after is None else after[1])
        return [((place.received_ms, place.id), place) for place in places]

    return chunk


def _may_be_event(wanted: EventFilter) -> Callable[[EventPlace], bool]:
    return lambda place: (
        wanted.from_ms <= place.received_ms < wanted.until_ms
        and (not wanted.names or place.name in wanted.names)
        and (wanted.own or not place.name.startswith("inngest/"))
    )


async def _events(reader: Reader, places: Sequence[EventPlace], wanted: EventFilter) -> list[EventRow | None]:
    rows = {row.id: row for row in await reader.events_by_id([place.id for place in places])}
    if wanted.query:
        shown = {row.id: await shown_event(reader, row) for row in rows.values()}
        rows = {key: row for key, row in rows.items() if all(one.is_true({"event": shown[key]}) for one in wanted.query)}
    return [rows.get(place.id) for place in places]


async def _page(
    chunk: Callable[[Place | None], Awaitable[Places[P]]],
    may_be: Callable[[P], bool],
    whole: Callable[[Sequence[P]], Awaitable[list[T | None]]],
    *,
    after: Place | None,
    limit: int,
    bodies: bool,
) -> Page[T]:
    """Walk until the page is full, the way ends, or enough was looked at."""
    found: list[tuple[Place, T]] = []
    end, looked, read = after, 0, 0
    while True:
        places = await chunk(end)
        candidates = [(at, place) for at, place in places if may_be(place)]
        for i in range(0, len(candidates), WHOLE_AT_ONCE):
            some = candidates[i : i + WHOLE_AT_ONCE]
            for (at, _), row in zip(some, await whole([place for _, place in some]), strict=True):
                if row is not None and len(found) == limit:
                    return Page(found, found[-1][0] if found else after, True)
                if row is not None:
                    found.append((at, row))
        looked, read = looked + len(places), read + len(candidates)
        if places:
            end = places[-1][0]
        if len(places) < CHUNK:
            return Page(found, found[-1][0] if found else None, False)
        if looked >= LOOKED_MAX or (bodies and read >= BODIES_LOOKED_MAX):
            return Page(found, end, True)
