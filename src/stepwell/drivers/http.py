"""Calls over HTTP, to apps that serve an SDK (inngest-protocol §4)."""

from __future__ import annotations

import time
from urllib.parse import quote, urlsplit

from stepwell.drivers.base import CheckpointFn
from stepwell.errors import CallError
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import Answer, CallRequest, encode_call, failed, parse_answer
from stepwell.protocol.signatures import sign


class HttpDriver:
    """Posts call requests, signed where there is a signing key. `kind` is the server's: `dev` or `cloud`."""

    def __init__(self, pool: Pool, *, kind: str = "dev", signing_key: str | None = None) -> None:
        self._pool, self._kind, self._signing_key = pool, kind, signing_key

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Post the request and read the answer. What goes wrong on the way is a failed attempt that may be retried (§4.7)."""
        body = encode_call(request)
        headers = {
            "content-type": "application/json",
            "x-inngest-server-kind": self._kind,
            "x-inngest-req-version": str(request.request_version),
            "x-run-id": request.run_id,
            "x-request-id": request.request_id,
            "x-inngest-job-id": request.item_id,
            "x-inngest-generation-id": str(request.fence),
            "x-inngest-step-id": request.step_id,
        }
        if self._signing_key is not None:
            headers["x-inngest-signature"] = sign(body, self._signing_key, int(time.time()))
        try:
            response = await self._pool.request("POST", call_url(request), headers=headers, body=body, timeout_s=request.timeout_ms / 1000)
        except CallError as error:
            return failed(error.code, str(error))
        return parse_answer(response.status, response.headers, response.body, now_ms=time.time_ns() // 1_000_000)


def call_url(request: CallRequest) -> str:
    """The function's URL with the function and the step in its query, in place of what registration wrote there (§4.1)."""
    parts = urlsplit(request.url)
    kept = [pair for pair in parts.query.split("&") if pair and pair.split("=", 1)[0] not in ("fnId", "stepId")]
    query = "&".join([*kept, f"fnId={quote(request.function_id, safe='')}", f"stepId={quote(request.step_id, safe='')}"])
    return parts._replace(query=query).geturl()
