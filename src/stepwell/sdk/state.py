"""Fetches what a call request was too large to hold: the run's steps and events (inngest-protocol §4.10)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.calls import CallRequest
from stepwell.protocol.codec import Json, canonicalize
from stepwell.sdk import http


async def with_state(request: CallRequest, server: str, headers: Mapping[str, str]) -> CallRequest:
    """The request, whole. Raises `ProtocolError` where the server does not give it."""
    steps_body, events_body = await _fetch(request, server, headers, "actions"), await _fetch(request, server, headers, "batch")
    try:
        steps = msgspec.json.decode(steps_body, type=dict[str, msgspec.Raw])
        events = msgspec.json.decode(events_body, type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise ProtocolError(f"the server's state of run {request.run_id} cannot be read: {error}", 500) from None
    return msgspec.structs.replace(
        request,
        steps={step: canonicalize(bytes(memo)) for step, memo in steps.items()},
        events=tuple(canonicalize(bytes(event)) for event in events) or request.events,
    )


async def _fetch(request: CallRequest, server: str, headers: Mapping[str, str], what: str) -> Json:
    url = f"{server}/v0/runs/{request.run_id}/{what}"
    response = await http.request("GET", url, headers=headers)
    if response.status != 200:
        raise ProtocolError(f"GET {url} answered HTTP {response.status}", 500)
    return response.body
