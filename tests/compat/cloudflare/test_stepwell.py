"""Stepwell does what Cloudflare's local runtime does, but where it differs by choice."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.compat.cloudflare.comparison import expected_here, verdict
from tests.compat.cloudflare.scenario import Observation, Scenario
from tests.compat.cloudflare.scenarios import SCENARIOS

pytestmark = pytest.mark.compat


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_it_does_what_is_expected(scenario: Scenario, seen_by_stepwell: Mapping[str, Observation]) -> None:
    """A row of the comparison; the texts of errors may be others."""
    seen, expected = seen_by_stepwell[scenario.id], expected_here(scenario)
    assert verdict(seen, expected) != "differs", f"{scenario.title}: {seen}, where {expected} is right"
