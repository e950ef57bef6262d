"""The `rig` fixture, and what the table is made from: a line for each case and rig.

Cases carry `@pytest.mark.capability("id")`. Which rigs run is told by `STEPWELL_COMPAT`: unset means each rig's share of `make test`,
`all` means every rig with every case, and names of rigs (with commas) mean every case of these. Where `STEPWELL_COMPAT_RESULTS` names a
file, a JSON line is added to it for each case.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.capabilities import BESIDE, CAPABILITIES
from tests.compat.rig import Rig
from tests.compat.rigs import RIGS

CHOICE = os.environ.get("STEPWELL_COMPAT", "")
RESULTS = os.environ.get("STEPWELL_COMPAT_RESULTS")


@pytest.fixture(scope="session", params=list(RIGS))
def session_rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A rig, started once for all its cases."""
    made = Rig(RIGS[request.param], tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


@pytest.fixture
def rig(session_rig: Rig) -> Rig:
    """A rig with an empty notebook."""
    session_rig.notes.clear()
    return session_rig


def _facts(item: pytest.Item) -> tuple[str, str] | None:
    """A case's capability and rig."""
    marker = item.get_closest_marker("capability")
    name = getattr(item, "callspec", None) and item.callspec.params.get("session_rig")  # type: ignore[attr-defined]
    if marker is None or not isinstance(name, str):
        return None
    (capability,) = marker.args
    assert capability in {known.id for known in CAPABILITIES}, f"{item.nodeid}: {capability!r} is not in capabilities.py"
    return capability, name


def _beside(item: pytest.Item) -> tuple[str, str] | None:
    """What a case of a module about one subject is of, whichever rig it runs on."""
    return next(((one.id, "") for one in BESIDE if one.module == item.path.stem), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this session does not run; expect failure of what is known not to work yet."""
    chosen = set(CHOICE.split(",")) - {"", "all"}
    assert chosen <= set(RIGS), f"STEPWELL_COMPAT names rigs that are not there: {chosen - set(RIGS)}; known are {', '.join(RIGS)}"
    kept, left = [], []
    for item in items:
        if (facts := _facts(item)) is None:
            kept.append(item)
            continue
        capability, name = facts
        asked = name in chosen if chosen else True
        (kept if asked and RIGS[name].runs(capability, everything=CHOICE != "") else left).append(item)
        for marker in item.iter_markers("not_yet"):
            if any(fnmatch.fnmatch(name, pattern) for pattern in marker.kwargs.get("rigs", ("*",))):
                item.add_marker(pytest.mark.xfail(reason=marker.args[0], strict=True))
    items[:] = kept
    config.hook.pytest_deselected(items=left)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Write down how a case ended."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if RESULTS is None or not (report.when == "call" or report.outcome != "passed"):
        return
    ended = "not yet" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    for capability, rig in filter(None, (_facts(item), _beside(item))):
        line = {"capability": capability, "rig": rig, "case": item.nodeid, "outcome": ended, "reason": getattr(report, "wasxfail", "")}
        with Path(RESULTS).open("a") as file:
            file.write(json.dumps(line) + "\n")
