"""`Gateway` and `AIGateway`: HTTP requests that the server makes as a step (§5.6, §5.7)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from stepwell.engine.advance import Advance
from stepwell.engine.commands import Keep
from stepwell.engine.model import Item
from stepwell.protocol.calls import Failed
from stepwell.protocol.codec import canonical
from stepwell.protocol.ops import Op, opts_of

GATEWAY_JOB = "gateway"
"""The job of an item whose call is a request that the server makes."""

SHOWN = ("type", "method", "format", "parallelMode")
"""What is stored of a request, beside its address without query and login: the rest may be secret."""


def on_gateway(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Give the step an item of its own. The request itself, keys and all, is kept by the node, in memory only."""
    opts = opts_of(op)
    shown = {name: opts[name] for name in SHOWN if name in opts} | shown_url(opts.get("url"))
    advance.plan(msgspec.structs.replace(op, opts=canonical(shown)), GATEWAY_JOB)
    advance.write(Keep(advance.run.id, op))
    return None


def shown_url(url: Any) -> dict[str, str]:
    """The address as it is stored; nothing where it is none."""
    if not isinstance(url, str):
        return {}
    try:
        parts = urlsplit(url)
        return {"url": parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()}
    except ValueError:  # a bracket that nothing closes
        return {}
