"""Calls to durable endpoints: the HTTP request that began the run, made once more (inngest-protocol §5.13).

The request's body is the user's, no call request: the app knows by the headers whose call it is, and fetches the run's state itself.
"""

from __future__ import annotations

import time

from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.http import HINTS, in_header
from stepwell.drivers.trace import trace_headers
from stepwell.errors import CallError, ProtocolError, UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_errors import Dropped
from stepwell.protocol.answers import SDK_HEADER
from stepwell.protocol.calls import CALL_TIMEOUT_MS, DISCOVERY, Answer, CallRequest, Lost, failed, parse_answer
from stepwell.protocol.checkpoints import HttpRequest, request_of
from stepwell.protocol.codec import canonicalize, decode
from stepwell.protocol.ops import OPCODES
from stepwell.protocol.signatures import sign

SIGNED_METHODS = frozenset(("POST", "PUT"))
"""The methods whose body JavaScript's SDK reads, and verifies."""


class EndpointDriver:
    """Makes the requests. `kind` is the server's: `dev` or `cloud`."""

    def __init__(self, pool: Pool, *, kind: str = "dev", signing_key: str | None = None, timeout_ms: int = CALL_TIMEOUT_MS) -> None:
        self._pool, self._kind, self._signing_key, self._timeout_ms = pool, kind, signing_key, timeout_ms

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Make the run's request once more and read the answer, which is one of ops."""
        try:
            original = request_of(request.events[0])
        except ProtocolError as error:
            return failed("NoHttpRequest", str(error), retriable=False)
        headers = {
            "x-run-id": request.run_id,
            "x-inngest-server-kind": self._kind,
            "x-inngest-req-version": str(request.request_version),
            "x-request-id": request.request_id,
            "x-inngest-job-id": request.item_id,
            **trace_headers(request),
            # Without a key it proves nothing, but its being there tells the app who calls.
            "x-inngest-signature": sign(signed_body(original), self._signing_key or "", int(time.time())),
        }
        if original.content_type:
            headers["content-type"] = original.content_type
        if request.fence > 0:
            headers["x-inngest-generation-id"] = str(request.fence)
        if request.step_id != DISCOVERY:
            headers["x-inngest-step-id"] = in_header(request.step_id)
        if request.disable_immediate_execution:
            headers["x-inngest-force-step-plan"] = "true"
        timeout_s = min(request.timeout_ms, self._timeout_ms) / 1000
        try:
            response = await self._pool.request(
                original.method, original.url, headers=headers, body=original.body, timeout_s=timeout_s, resend=False
            )
        except Dropped as error:
            # As with calls to functions (`http.py`): made again under a new fence, never sent a second time as it was.
            return Lost(reason=str(error))
        except CallError as error:
            return failed(error.code, f"{error}. {HINTS.get(error.code, '')}".strip(), code=error.code)
        except UsageError as error:
            return failed("http_unreachable", str(error), code="http_unreachable")
        status, told = response.status, response.headers
        if 200 <= status < 300 and holds_ops(response.body):
            # Ops are unmistakable: whatever the status says beside them, they come from an SDK.
            status, told = 206, {SDK_HEADER: original.sdk, **told}
        return parse_answer(status, told, response.body, now_ms=time.time_ns() // 1_000_000)


def signed_body(original: HttpRequest) -> bytes:
    """What the signature is over: SDKs put a JSON body in canonical form before they verify it, and JavaScript's reads some bodies only."""
    if original.sdk.startswith("inngest-js") and original.method not in SIGNED_METHODS:
        return b""
    try:
        return canonicalize(original.body) if original.body.strip() else original.body
    except ProtocolError:
        return original.body


def holds_ops(body: bytes) -> bool:
    """Whether the body is an array of ops, or a single one."""
    try:
        value = decode(body)
    except ProtocolError:
        return False
    told = value if isinstance(value, list) else [value]
    return bool(told) and all(isinstance(one, dict) and one.get("op") in OPCODES for one in told)


__all__ = ["EndpointDriver"]
