"""The guards of durable endpoints, checkpoints and defers, taken away one by one: some seed notices each (see test_planted_bugs.py)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepwell.engine import advance, calls, defers, ending, endpoints
from stepwell.engine.model import TimerKind
from tests.simulation.planting import Plant, assert_noticed
from tests.simulation.world import simulate

SEEDS = (80, *range(1, 80), *range(81, 400))
"""The first one alone of many notices results that are dropped."""


def checkpoints_of_old_leases_count(patch: pytest.MonkeyPatch) -> None:
    """A call that another one has superseded may go on saving."""
    patch.setattr(calls, "is_superseded", lambda item, checkpoint: False)


def ended_runs_take_reports(patch: pytest.MonkeyPatch) -> None:
    """A report of an ended run is answered as if it were saved."""
    patch.setattr(endpoints, "tells_end", lambda run, ops: True)


def ends_cannot_be_told_again(patch: pytest.MonkeyPatch) -> None:
    """A report whose answer was lost is another run's when it comes again."""
    original = endpoints.on_sync_run_begun

    def begun(registry: Any, view: Any, input: Any, now_ms: int) -> Any:
        if view.run(input.run_id) is not None:
            return [endpoints.Refuse(endpoints.ProtocolError("the run exists already", 409))]
        return original(registry, view, input, now_ms)

    patch.setattr(endpoints, "on_sync_run_begun", begun)


def sessions_are_not_put_off(patch: pytest.MonkeyPatch) -> None:
    """However often an app is heard, its run is taken over."""
    patch.setattr(endpoints, "GRACE_MS", 2_000)


def sessions_outlive_the_hand_over(patch: pytest.MonkeyPatch) -> None:
    """A run that its app has handed over is called by its session as well."""
    patch.setattr(advance.Advance, "leave", lambda self, session: None)


def runs_have_no_session(patch: pytest.MonkeyPatch) -> None:
    """An app that dies takes its run with it."""
    original = endpoints.session_of
    far = 1 << 50
    patch.setattr(
        endpoints, "session_of", lambda run, now_ms: msgspec.structs.replace(original(run, now_ms), due_ms=far, kind=TimerKind.LIMIT)
    )


def slow_apps_may_hand_over_twice(patch: pytest.MonkeyPatch) -> None:
    """A report that comes when the engine has the run has done what it asks for."""
    original = endpoints.take

    def take(advance_: Any, session: Any, told: Any) -> bool:
        late = session is None
        if late:
            patch.setattr(advance.Advance, "leave", lambda self, session: None)
            session = endpoints.session_of(advance_.run, advance_.now_ms)
        return original(advance_, session, told)

    patch.setattr(endpoints, "take", take)


def results_of_slow_apps_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """They are acknowledged, and not saved."""
    original = endpoints.take
    patch.setattr(endpoints, "take", lambda advance_, session, told: False if session is None else original(advance_, session, told))


def retries_of_handed_over_runs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A step that failed at its app is not tried again."""
    patch.setattr(advance.Advance, "carry", lambda self, timer: None)


def deferred_runs_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A run's end asks for nothing."""
    patch.setattr(ending, "schedule_deferred", lambda advance_: [])


def deferred_runs_are_not_begun(patch: pytest.MonkeyPatch) -> None:
    """The events that ask for them lead to nothing."""
    patch.setattr(ending, "routed", lambda event, now_ms: [])


def aborted_ones_may_be_added_again(patch: pytest.MonkeyPatch) -> None:
    """What was taken back comes back when the app tells of it again."""
    original = defers.Defers.add

    def add(self: Any, op: Any) -> None:
        row = self._rows.get(op.id)
        if row is not None and row.status is defers.DeferStatus.ABORTED:
            del self._rows[op.id]
        original(self, op)

    patch.setattr(defers.Defers, "add", add)


def lazy_ops_open_groups(patch: pytest.MonkeyPatch) -> None:
    """What rides along is waited for like a step."""
    original = calls.lazy_first

    def lazy_first(advance_: Any, ops: Any, item: Any, worker: str) -> Any:
        original(advance_, ops, item, worker)
        return ops

    patch.setattr(calls, "lazy_first", lazy_first)


PLANTS: list[Plant] = [
    checkpoints_of_old_leases_count,
    ended_runs_take_reports,
    ends_cannot_be_told_again,
    sessions_are_not_put_off,
    sessions_outlive_the_hand_over,
    runs_have_no_session,
    slow_apps_may_hand_over_twice,
    results_of_slow_apps_are_dropped,
    retries_of_handed_over_runs_are_forgotten,
    deferred_runs_are_forgotten,
    deferred_runs_are_not_begun,
    aborted_ones_may_be_added_again,
    lazy_ops_open_groups,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of a few hundred fails with the guard taken away."""
    assert_noticed(plant, monkeypatch, SEEDS, simulate)
