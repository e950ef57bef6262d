"""Every scenario is run once for all tests, in one process; where results are kept, what was seen is kept beside them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.cloudflare.comparison import expected_here, keep, verdict
from tests.compat.cloudflare.runtime import MiniflareRuntime, StepwellRuntime, WorkerRuntime
from tests.compat.cloudflare.scenario import Observation, Scenario
from tests.compat.cloudflare.scenarios import SCENARIOS

RESULTS = os.environ.get("STEPWELL_COMPAT_RESULTS")


async def _seen(runtime: WorkerRuntime) -> dict[str, Observation]:
    async with runtime:
        return await runtime.observe_all()


def seen_by(make: type[WorkerRuntime], name: str, is_right: Callable[[Scenario, Observation], bool]) -> dict[str, Observation]:
    """What a runtime does in every scenario. One that is not seen to be right is looked at once more, in a process with few others:
    most are about times, which a busy machine bends.
    """
    seen = asyncio.run(_seen(make(SCENARIOS)))
    odd = [scenario for scenario in SCENARIOS if not is_right(scenario, seen[scenario.id])]
    if odd:
        seen |= asyncio.run(_seen(make(odd)))
    if RESULTS is not None:
        keep(Path(RESULTS), name, seen)
    return seen


@pytest.fixture(scope="session")
def seen_by_miniflare() -> dict[str, Observation]:
    """What Cloudflare's local runtime does."""
    return seen_by(MiniflareRuntime, "miniflare", lambda scenario, seen: seen == scenario.expected)


@pytest.fixture(scope="session")
def seen_by_stepwell() -> dict[str, Observation]:
    """What we do."""
    return seen_by(StepwellRuntime, "stepwell", lambda scenario, seen: verdict(seen, expected_here(scenario)) != "differs")
