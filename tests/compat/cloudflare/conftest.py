"""Every scenario is run once for all tests, in one process; where results are kept, what was seen is kept beside them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.compat.cloudflare.comparison import keep
from tests.compat.cloudflare.runtime import MiniflareRuntime, StepwellRuntime, WorkerRuntime
from tests.compat.cloudflare.scenario import Observation
from tests.compat.cloudflare.scenarios import SCENARIOS

RESULTS = os.environ.get("STEPWELL_COMPAT_RESULTS")


async def _seen(runtime: WorkerRuntime) -> dict[str, Observation]:
    async with runtime:
        return await runtime.observe_all()


def seen_by(runtime: WorkerRuntime, name: str) -> dict[str, Observation]:
    """What a runtime does in every scenario."""
    seen = asyncio.run(_seen(runtime))
    if RESULTS is not None:
        keep(Path(RESULTS), name, seen)
    return seen


@pytest.fixture(scope="session")
def seen_by_miniflare() -> dict[str, Observation]:
    """What Cloudflare's local runtime does."""
    return seen_by(MiniflareRuntime(SCENARIOS), "miniflare")


@pytest.fixture(scope="session")
def seen_by_stepwell() -> dict[str, Observation]:
    """What we do."""
    return seen_by(StepwellRuntime(SCENARIOS), "stepwell")
