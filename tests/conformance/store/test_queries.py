"""One suite for every store: what queries for lists, traces and outputs find, in which order, and by which index."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.engine.commands import DeleteRun, EndRun, Put, SetRow
from stepwell.engine.model import Attempt, Metadata, RunStatus, StepInput, TraceTotals, UserSpan
from stepwell.engine.tables import span_value
from stepwell.engine.view import Scan, Select
from stepwell.protocol.ids import ulid
from stepwell.store.base import RunOrder, RunWalk, Store
from stepwell.store.sqlite import SqliteStore
from stepwell.store.sqlite_reader import STATEMENTS
from tests.conformance.store.conftest import Work
from tests.conformance.store.test_store import a_run, a_step, an_event, seen, write

IDS = [ulid(1000 * n, bytes([n] * 10)) for n in range(12)]


def a_note(**columns: object) -> Metadata:
    """A note about a run."""
    fields = {"run_id": "R1", "scope": "run", "span": "", "kind": "userland.x", "values": b'{"a":1}', "updated_ms": 1, **columns}
    return Metadata(**fields)  # type: ignore[arg-type]


def a_span(span_id: str, **columns: object) -> UserSpan:
    """A span of a user's code."""
    fields = {
        "run_id": "R1", "id": span_id, "parent_id": "", "step_id": "", "name": "n", "kind": "internal", "status": "ok", "message": "",
        "attributes": b"{}", "started_ms": 1, "ended_ms": 2, **columns,
    }  # fmt: skip
    return UserSpan(**fields)  # type: ignore[arg-type]


async def some_runs(store: Store) -> None:
    """Twelve runs of two functions; most have started, in another order than they were made, and some of these have ended."""
    for n, run_id in enumerate(IDS):
        started_ms = None if n % 4 == 0 else 50_000 - 1000 * (n // 2)
        status = RunStatus.QUEUED if started_ms is None else RunStatus.RUNNING
        await write(store, Put(a_run(run_id, function_id="fg"[n % 2], created_ms=1000 * n, started_ms=started_ms, status=status)))
        if n % 3 == 1:
            await write(store, EndRun(run_id, RunStatus.FAILED, b"{}", None, 90_000 + n % 2), selections=(Select("runs", run_id),))


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("order", list(RunOrder))
def test_a_way_through_the_runs_meets_each_once(check: Callable[[Work], None], order: RunOrder, descending: bool) -> None:
    """In order, runs of the same time by their id, however small the pages."""

    async def work(store: Store) -> None:
        await some_runs(store)
        found = []
        after = None
        while places := await store.reader.walk_runs(RunWalk(order=order, descending=descending, after=after), 2):
            found += places
            after = (places[-1].at_ms, places[-1].id)
        runs = {run.id: run for run in await store.reader.runs_by_id(IDS)}
        times = {
            RunOrder.MADE: {run_id: 1000 * n for n, run_id in enumerate(IDS)},
            RunOrder.STARTED: {run.id: run.started_ms for run in runs.values() if run.started_ms is not None},
            RunOrder.ENDED: {run.id: run.ended_ms for run in runs.values() if run.ended_ms is not None},
        }[order]
        wanted = sorted(((at, run_id) for run_id, at in times.items()), reverse=descending)
        assert [(place.at_ms, place.id) for place in found] == wanted and len(wanted) > 2
        assert all((place.status, place.function_id) == (runs[place.id].status, runs[place.id].function_id) for place in found)

    check(work)


def test_a_way_keeps_to_its_span_of_time_and_its_function(check: Callable[[Work], None]) -> None:
    """From a time on, before another one; of one function, where asked."""

    async def work(store: Store) -> None:
        await some_runs(store)
        for descending in (True, False):
            made = await store.reader.walk_runs(RunWalk(from_ms=2000, until_ms=9000, function_id="f", descending=descending), 9)
            assert sorted(place.id for place in made) == [IDS[2], IDS[4], IDS[6], IDS[8]]
            ended = await store.reader.walk_runs(RunWalk(order=RunOrder.ENDED, from_ms=90_001, until_ms=90_002, descending=descending), 9)
            assert sorted(place.id for place in ended) == [IDS[1], IDS[7]]

    check(work)


def test_places_of_events(check: Callable[[Work], None]) -> None:
    """Newest first, behind an id."""

    async def work(store: Store) -> None:
        await write(store, *(Put(an_event(f"E{n}", name="ab"[n % 2], received_ms=n)) for n in range(5)))
        places = await store.reader.walk_events(2, "E3")
        assert [(place.id, place.name, place.received_ms) for place in places] == [("E2", "a", 2), ("E1", "b", 1)]
        assert [place.id for place in await store.reader.walk_events(1)] == ["E4"]

    check(work)


def test_what_a_trace_is_made_of(check: Callable[[Work], None]) -> None:
    """Steps with their memos, tries, inputs, notes, spans, and how much of them there is."""

    async def work(store: Store) -> None:
        attempt = Attempt(
            id="R1-s/1", run_id="R1", step_id="s", attempt=0, kind="failed", started_ms=1, ended_ms=2, error=b'{"name":"E"}', worker=""
        )
        notes = [a_note(), a_note(scope="step", span="s", kind="b"), a_note(scope="step", span="s", kind="a")]
        spans = [a_span("2", started_ms=1), a_span("1", started_ms=1), a_span("0", started_ms=2)]
        totals = TraceTotals(run_id="R1", metadata_bytes=9, spans=3)
        edited = StepInput(run_id="R1", step_id="s", input=b"[1]")
        await write(store, Put(a_run()), Put(a_step("s")), Put(attempt), *map(Put, [*notes, *spans, totals, edited]))
        await write(store, Put(a_run("R11")), Put(a_note(run_id="R11")), Put(a_span("9", run_id="R11")))
        reader = store.reader
        assert await reader.step("R1", "s") == a_step("s") and await reader.step("R1", "t") is None
        assert await reader.attempt("R1-s/1") == attempt and await reader.attempt("R1-s/2") is None
        assert await reader.metadata_of("R1") == (notes[0], notes[2], notes[1])
        assert [span.id for span in await reader.spans_of("R1")] == ["1", "2", "0"]
        assert (await reader.trace_totals("R1"), await reader.trace_totals("R2")) == (totals, None)
        assert await reader.inputs_of("R1") == (edited,) and await reader.inputs_of("R11") == ()
        assert [run.id for run in await reader.runs_by_id(["R11", "R2", "R1"])] == ["R11", "R1"]

    check(work)


def test_notes_of_one_span_are_found_and_changed(check: Callable[[Work], None]) -> None:
    """By kind; a changed one is the same row."""

    async def work(store: Store) -> None:
        await write(store, *(Put(a_note(scope="step", span=span, kind=kind)) for span in ("s", "s/0") for kind in "ba"))
        scan = Scan("span_metadata", span_value("R1", "step", "s"), 5)
        view = await seen(store, scan)
        assert [row.kind for row in view.scan(scan.name, scan.value, 5)] == ["a", "b"]
        changed = a_note(scope="step", span="s", kind="a", values=b"{}", updated_ms=2)
        await write(store, SetRow(changed), selections=(Select("metadata", ("R1", "step", "s", "a")),))
        view = await seen(store, scan)
        assert view.scan(scan.name, scan.value, 5)[0] == changed

    check(work)


def test_a_run_that_goes_takes_all_of_its_trace(check: Callable[[Work], None]) -> None:
    """Its notes, spans, inputs and totals; another run's stay."""

    async def work(store: Store) -> None:
        for run_id in ("R1", "R11"):
            rows = [
                a_note(run_id=run_id),
                a_span("1", run_id=run_id),
                TraceTotals(run_id=run_id),
                StepInput(run_id=run_id, step_id="s", input=b"[]"),
            ]
            await write(store, Put(a_run(run_id)), *map(Put, rows))
        await write(store, DeleteRun("R1"), selections=(Select("runs", "R1"),))
        reader = store.reader
        assert (await reader.metadata_of("R1"), await reader.spans_of("R1"), await reader.inputs_of("R1")) == ((), (), ())
        assert await reader.trace_totals("R1") is None and await reader.trace_totals("R11") is not None
        assert await reader.metadata_of("R11") and await reader.spans_of("R11") and await reader.inputs_of("R11")

    check(work)


QUERIES = {
    "walk_made_down": "USING PRIMARY KEY",
    "walk_made_up": "USING PRIMARY KEY",
    "walk_made_down_of_function": "USING INDEX runs_by_function",
    "walk_made_up_of_function": "USING INDEX runs_by_function",
    "walk_started_down": "USING INDEX runs_started",
    "walk_started_up": "USING INDEX runs_started",
    "walk_ended_down": "USING INDEX runs_ended",
    "walk_ended_up": "USING INDEX runs_ended",
    "walk_events": "USING PRIMARY KEY",
    "runs_by_id": "USING PRIMARY KEY",
    "step_of": "USING PRIMARY KEY",
    "inputs_of": "USING PRIMARY KEY",
    "metadata_of": "USING PRIMARY KEY",
    "spans_of": "USING PRIMARY KEY",
    "span_metadata": "USING PRIMARY KEY",
}


def test_each_query_goes_by_an_index(tmp_path: Path) -> None:
    """None reads a whole table, and lists are not sorted: their order is their index's."""
    path = tmp_path / "plans.db"

    async def made() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.close()

    asyncio.run(made())
    connection = sqlite3.connect(path)
    for name, index in QUERIES.items():
        text = STATEMENTS[name].text
        parameters = {word.strip(":,()"): "1" for word in text.replace("(", " ").replace(")", " ").split() if word.startswith(":")}
        plan = " | ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters))
        assert index in plan, (name, plan)
        assert "SCAN runs" not in plan and "SCAN events" not in plan, (name, plan)
        if name != "spans_of":  # a run's spans are few, and sorted
            assert "TEMP B-TREE" not in plan, (name, plan)
    connection.close()
