"""Waiting for signals: named, each for one run."""

from __future__ import annotations

import json
from urllib.error import HTTPError

import pytest

from tests.compat.rig import Rig

pytestmark = [pytest.mark.compat, pytest.mark.capability("signal")]
CONFLICT = "Signal conflict; signal wait already exists for another run"


def test_a_signal_of_the_api_ends_the_wait(rig: Rig) -> None:
    """The waiting run is named, and gets the signal with its data; nobody waits for it any more."""
    run_id = rig.start("waits-for-signal", {"signal": "api"})
    rig.waiting(run_id, "signal")
    body = {"signal": "api", "data": {"n": [1, 2.5]}}
    assert rig.server.ask("/v1/signals", body)["data"] == {"run_id": run_id}
    trace = rig.ended(run_id)
    assert trace.output == {"signal": "api", "data": {"n": [1, 2.5]}}
    assert len(rig.calls(run_id)) == 2
    with pytest.raises(HTTPError) as refused:
        rig.server.ask("/v1/signals", body)
    answer = json.load(refused.value)
    assert refused.value.code == answer["status"] == 404 and "api" in answer["error"]


def test_a_signal_of_a_step_ends_the_wait(rig: Rig) -> None:
    """`step.sendSignal` of another function does the same, and is a step of a type of its own."""
    run_id = rig.start("waits-for-signal", {"signal": "of a step"})
    rig.waiting(run_id, "signal")
    sender = rig.run("sends-signal", {"signal": "of a step"})
    assert sender.output == "sent" and sender.steps["send"]["type"] == "step.sendSignal"
    assert rig.ended(run_id).output == {"signal": "of a step", "data": {"from": "a step"}}


def test_a_signal_that_nobody_waits_for_is_no_error(rig: Rig) -> None:
    """The sender goes on."""
    assert rig.run("sends-signal", {"signal": "nobody"}).output == "sent"


def test_a_signal_that_does_not_come_is_nothing(rig: Rig) -> None:
    """After the wait's time."""
    trace = rig.run("waits-for-signal", {"signal": "never", "timeout": "1s"})
    assert trace.output is None
    assert 1000 <= trace.steps["signal"]["ended_ms"] - trace.steps["signal"]["queued_ms"] < 3000


def test_a_second_wait_for_a_signal_fails_its_run(rig: Rig) -> None:
    """The first one is not disturbed."""
    first = rig.start("waits-for-signal", {"signal": "wanted"})
    rig.waiting(first, "signal")
    assert CONFLICT in rig.run("waits-for-signal", {"signal": "wanted"}).error["message"]
    rig.server.ask("/v1/signals", {"signal": "wanted", "data": 1})
    assert rig.ended(first).output == {"signal": "wanted", "data": 1}


def test_a_second_wait_may_replace_the_first(rig: Rig) -> None:
    """The signal is the newer run's; the older one's time goes on."""
    older = rig.start("waits-for-signal", {"signal": "taken", "timeout": "2s"})
    rig.waiting(older, "signal")
    newer = rig.start("waits-for-signal", {"signal": "taken", "conflict": "replace"})
    rig.waiting(newer, "signal")
    assert rig.server.ask("/v1/signals", {"signal": "taken", "data": None})["data"] == {"run_id": newer}
    assert rig.ended(newer).output == {"signal": "taken", "data": None}
    assert rig.ended(older).output is None
