"""`DiscoveryRequest`: call me again now."""

from __future__ import annotations

from stepwell.engine.advance import Advance
from stepwell.engine.model import Item
from stepwell.protocol.calls import Failed
from stepwell.protocol.ops import Op


def on_discovery_request(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Enqueue the discovery; its id is the app's, new for each request."""
    advance.discover(op.id)
    return None
