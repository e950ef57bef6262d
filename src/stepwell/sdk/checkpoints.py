"""Checkpoints over HTTP: a request of the server's goes on for several steps, each durable before the next (inngest-protocol §5.12)."""

from __future__ import annotations

import asyncio
import time

from stepwell.errors import CallError, ProtocolError, RunPaused, Superseded
from stepwell.protocol.calls import DISCOVERY, CallRequest, Checkpoint
from stepwell.protocol.codec import Json, decode, text
from stepwell.protocol.ops import encode_ops
from stepwell.sdk import http
from stepwell.sdk.keys import SigningKeys
from stepwell.sdk.request import CheckpointFn

MISSING_AGAIN_S = 60.0
"""How long a server that has no checkpoints, or cannot be reached from here, is not asked for them again."""


class Checkpoints:
    """The checkpoints of one server, for requests that go on for `max_runtime_s` at most."""

    def __init__(self, max_runtime_s: float) -> None:
        self._max_runtime_s = max_runtime_s
        self._missing_until = 0.0

    def of(self, request: CallRequest, server: str, keys: SigningKeys) -> CheckpointFn | None:
        """What makes the steps of this request durable; `None` where it has to end after one step.

        A targeted call runs one step anyway, and in a planned part steps are not run at once. Without an item and a generation the
        server could not tell a call that has been superseded.
        """
        loop = asyncio.get_running_loop()
        plain = request.step_id == DISCOVERY and not request.disable_immediate_execution
        if not plain or not request.item_id or request.fence < 1 or self._max_runtime_s <= 0 or loop.time() < self._missing_until:
            return None
        until = loop.time() + self._max_runtime_s

        async def save(checkpoint: Checkpoint) -> None:
            if loop.time() >= until:
                raise CallError(f"the request has gone on for {self._max_runtime_s:g} s: it ends with this step")
            await self._save(request, checkpoint, server, keys)

        return save

    async def _save(self, request: CallRequest, checkpoint: Checkpoint, server: str, keys: SigningKeys) -> None:
        """Save steps. Raises `Superseded`, `RunPaused`, `ProtocolError` beyond a limit, else `CallError`."""
        url = f"{server}/v1/checkpoint/{checkpoint.run_id}/async"
        headers = {"content-type": "application/json"}
        try:
            # One try: where it fails, the answer to the call tells of the step, at the cost of another call.
            response = await http.authorized("POST", url, keys, headers=headers, body=_body(request, checkpoint), tries=1)
        except CallError:
            self._miss()
            raise
        if response.status < 300:
            return
        message = _message(response.body) or f"POST {url} answered HTTP {response.status}"
        match response.status:
            case 409:
                raise Superseded(message)
            case 423:
                raise RunPaused(message)
            case 413:
                raise ProtocolError(message, 413, code="output_too_large")
            case 404 | 405 | 501:
                self._miss()
        raise CallError(message)

    def _miss(self) -> None:
        self._missing_until = asyncio.get_running_loop().time() + MISSING_AGAIN_S


def _body(request: CallRequest, checkpoint: Checkpoint) -> bytes:
    return b"".join(
        (
            b'{"fn_id":',
            text(request.function_uuid),
            b',"generation_id":%d,"qi_id":' % checkpoint.fence,
            text(checkpoint.item_id),
            b',"request_id":',
            text(request.request_id),
            b',"run_id":',
            text(checkpoint.run_id),
            b',"steps":',
            encode_ops(checkpoint.ops),
            b',"ts":%d}' % (time.time_ns() // 10**6),
        )
    )


def _message(body: Json) -> str | None:
    try:
        answer = decode(body)
    except ProtocolError:
        return None
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, str) else None
