"""The comparison's rows, in the order of its table."""

from __future__ import annotations

from tests.compat.cloudflare.actor_scenarios import ACTORS
from tests.compat.cloudflare.binding_scenarios import BINDINGS
from tests.compat.cloudflare.queue_scenarios import QUEUES
from tests.compat.cloudflare.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (*QUEUES, *ACTORS, *BINDINGS)
