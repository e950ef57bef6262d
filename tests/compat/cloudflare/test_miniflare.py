"""Cloudflare's local runtime does what the scenarios expect of it: with a newer one, what changed is seen here first."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.compat.cloudflare.scenario import Observation, Scenario
from tests.compat.cloudflare.scenarios import SCENARIOS

pytestmark = pytest.mark.compat


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_it_does_what_is_expected(scenario: Scenario, seen_by_miniflare: Mapping[str, Observation]) -> None:
    """A row of the comparison."""
    assert seen_by_miniflare[scenario.id] == scenario.expected, scenario.title
