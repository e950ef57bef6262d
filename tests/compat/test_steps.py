"""Steps: run once, remembered, repeated by name, asleep, sending."""

from __future__ import annotations

import pytest

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat

CALLS_OF_WHOLE = {"joined": 10}
"""Discoveries and targeted calls: first, the plan, left and right, nap, three tries of flaky, send, the end."""


@pytest.mark.capability("run")
def test_every_step_runs_as_often_as_it_has_to(rig: Rig) -> None:
    """A finished step is remembered; the output is what the function returned; the trace shows it all."""
    trace = rig.run("whole", {"x": [1, "ü"]})
    number = {"whole": 1, "half": 1.5}
    assert trace.output == [number, [number, number], 3, 1, {"x": [1, "ü"]}]
    assert rig.notes.counts() == {"first": 1, "left": 1, "right": 1, "flaky": 3}
    assert set(trace.steps) == {"first", "left", "right", "nap", "flaky", "send"}
    assert {name: step["tries"] for name, step in trace.steps.items() if step["op"] == "run"} == {
        "first": 1,
        "left": 1,
        "right": 1,
        "flaky": 3,
        "send": 1,
    }
    assert [one["error"]["message"] for one in trace.steps["flaky"]["attempts"]] == ["try 1", "try 2"]
    assert trace.steps["first"]["output"] == number and trace.attempts == []
    if rig.spec.ways in CALLS_OF_WHOLE:
        assert len(rig.calls(trace.id)) == CALLS_OF_WHOLE[rig.spec.ways]


@pytest.mark.capability("sleep")
def test_a_sleep_lasts_as_long_as_it_should(rig: Rig) -> None:
    """Neither shorter nor much longer, and without a call meanwhile."""
    nap = rig.run("whole").steps["nap"]
    assert nap["op"] == "sleep" and 250 <= nap["ended_ms"] - nap["queued_ms"] < 2000
