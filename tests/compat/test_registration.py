"""Apps that register themselves, change and move."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from stepwell.protocol.signatures import verify
from tests.compat.rig import SIGNING_KEY, Rig
from tests.support.processes import ask, until

pytestmark = pytest.mark.compat


@pytest.mark.capability("sync")
def test_an_app_registers_when_it_is_asked(rig: Rig) -> None:
    """The server's PUT makes the SDK register; asked again, it says so again and nothing changes."""
    before = rig.functions()
    assert {rig.slug(name) for name in ("whole", "plain", "told", "told-failure", "ticks")} <= before
    puts = until(lambda: [call for call in rig.recorder.all() if call.method == "PUT" and call.status == 200], "the sync is answered")
    assert puts[0].headers["x-inngest-server-kind"] == rig.spec.kind
    assert puts[0].answer_headers["x-inngest-sdk"] == rig.spec.sdk
    if rig.spec.kind == "dev":
        answer = ask(rig.app_url, {"url": rig.app_url}, method="PUT")
        assert not answer.get("error"), answer
    assert rig.functions() == before


@pytest.mark.capability("sync-in-band")
def test_a_signed_sync_is_answered_with_the_functions(rig: Rig) -> None:
    """The app tells them in its signed answer, and makes no call of its own."""
    put = until(lambda: [call for call in rig.recorder.all() if call.method == "PUT" and call.status == 200], "the sync is answered")[0]
    assert put.headers["x-inngest-sync-kind"] == put.answer_headers["x-inngest-sync-kind"] == "in_band"
    now_s = int(time.time())
    assert verify(put.answer, put.answer_headers["x-inngest-signature"], SIGNING_KEY, now_s, age_max_s=3600)
    assert {function["id"] for function in json.loads(put.answer)["functions"]} <= rig.functions()


@pytest.mark.capability("sync-config")
def test_every_setting_is_accepted(rig: Rig) -> None:
    """A function with every setting that the SDK knows is registered, and so is one with a batch and a cron line in a zone."""
    shown = {function["id"]: function for function in rig.server.ask("/api/functions")["functions"]}
    assert shown[rig.slug("settings")]["name"] == "Every setting"
    assert shown[rig.slug("batched")]["triggers"] == ["TZ=Europe/Berlin 0 3 * * 1-5"]


@pytest.mark.capability("sync-change")
def test_a_changed_app_replaces_the_old_one(rig: Rig, tmp_path: Path) -> None:
    """Functions that are gone start nothing; runs that sleep go on where the app is now."""
    app_id = f"{rig.app_id}-moving"

    def known() -> set[str]:
        return {one.removeprefix(f"{app_id}-") for one in rig.functions() if one.startswith(f"{app_id}-")}

    with rig.other_app(tmp_path, app_id, "plain,budget-sleeps"):
        assert known() == {"plain", "budget-sleeps"}
        run_id = rig.server.run_of(rig.server.send(f"{app_id}/budget-sleeps", {"nap": 3}))
        rig.waiting(run_id, "nap")
    with rig.other_app(tmp_path, app_id, "values,budget-sleeps"):
        assert known() == {"values", "budget-sleeps"}
        gone = rig.server.send(f"{app_id}/plain")
        trace = rig.ended(run_id)
        assert trace.output == ["before", "after"]
        new = rig.ended(rig.server.run_of(rig.server.send(f"{app_id}/values", {"value": 1})))
        assert new.output == {"step": 1, "event": 1}
        assert rig.runs_of(gone) == []
