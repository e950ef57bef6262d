"""Large values, and answers that come as a stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat


@pytest.mark.capability("large")
def test_state_that_is_too_large_for_a_call_is_fetched(rig: Rig) -> None:
    """Beyond 4 MiB a call has no steps, and the SDK asks for them."""
    trace = rig.run("big")
    assert trace.output == [1_500_000] * 4
    if not rig.records:
        return
    calls = rig.calls(trace.id)
    fetched = [call for call in calls if call.request["ctx"]["use_api"]]
    assert fetched, "no call told the app to fetch its steps"
    assert all(call.request["use_api"] and call.request["steps"] == {} for call in fetched)
    assert all(len(call.body) <= 4 * 1024 * 1024 for call in calls)


@pytest.mark.capability("large")
def test_a_large_event_reaches_its_function(rig: Rig) -> None:
    """With its step's result beside it the call would be too large: both come, and nothing is cut."""
    text = "ü" + "x" * 2_400_000
    assert rig.run("values", {"value": text}).output == {"step": text, "event": text}


@pytest.mark.capability("large")
def test_a_step_that_gives_too_much_fails(rig: Rig) -> None:
    """It is tried as often as any, and the run tells how much may be given."""
    trace = rig.run("too-large")
    assert "4194304" in trace.error["message"] or "4 MiB" in trace.error["message"], trace.error
    assert rig.notes.count("too large") == 2


@pytest.mark.capability("large")
def test_an_output_that_is_too_large_fails(rig: Rig) -> None:
    """With the protocol's own name for it."""
    error = rig.run("returns-too-much").error
    assert error["name"] == "output_too_large" or error.get("code") == "output_too_large"


@pytest.mark.capability("streaming")
def test_answers_come_as_a_stream(rig: Rig, tmp_path: Path) -> None:
    """An SDK that is told to stream answers every call so: results, failures and retries mean what they always do."""
    streaming = Rig(rig.spec, tmp_path, {"INNGEST_STREAMING": "force"})
    try:
        trace = streaming.run("caught")
        assert trace.output == "caught boom" and streaming.notes.count("boom") == 2
        assert {call.status for call in streaming.calls(trace.id)} == {201}
        final = streaming.run("final")
        assert final.error["message"] == "no use" and streaming.notes.count("final") == 1
        assert streaming.run("values", {"value": 1}).output == {"step": 1, "event": 1}
    finally:
        streaming.close()
