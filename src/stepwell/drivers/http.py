"""Calls over HTTP, to apps that serve an SDK (inngest-protocol §4).

What the answer means is `protocol`'s to say, what can go wrong on the way is the pool's; this puts the two together.
"""

from __future__ import annotations

import time
from functools import lru_cache
from urllib.parse import quote, urlsplit

import msgspec

from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.signed import UNAUTHORIZED, Signed, SigningKeys
from stepwell.drivers.trace import trace_headers
from stepwell.errors import CallError, UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_errors import Dropped
from stepwell.protocol.calls import CALL_TIMEOUT_MS, Answer, CallRequest, Failed, Lost, encode_call, failed, parse_answer
from stepwell.protocol.codec import canonical, decode, first_unsafe_integer

HINTS = {
    "http_unreachable": "Is the app running, and is its URL right?",
    "request_duration_too_long": "Cut what takes so long into steps.",
    "output_too_large": "Store what is large elsewhere, and return its address.",
}
"""What to do about a failure, by its code (§4.7)."""


class HttpDriver:
    """Posts call requests, signed where there are signing keys.

    `kind` is the server's: `dev` or `cloud`. No call takes longer than `timeout_ms`, whatever its request allows. Apps over HTTP
    report checkpoints by requests of their own, so a call's `checkpoint` is not used.
    """

    def __init__(self, pool: Pool, *, kind: str = "dev", signing_keys: SigningKeys = tuple, timeout_ms: int = CALL_TIMEOUT_MS) -> None:
        self._signed, self._signing_keys, self._timeout_ms = Signed(pool, signing_keys), signing_keys, timeout_ms
        self._fixed = {"content-type": "application/json", "x-inngest-server-kind": kind}

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Post the request and read the answer. What goes wrong on the way is a failed attempt that may be retried (§4.7)."""
        body = encode_call(request)
        headers = {
            **self._fixed,
            "x-inngest-req-version": str(request.request_version),
            "x-run-id": request.run_id,
            "x-request-id": request.request_id,
            "x-inngest-job-id": request.item_id,
            "x-inngest-step-id": in_header(request.step_id),
            **trace_headers(request),
        }
        if request.fence > 0:
            headers["x-inngest-generation-id"] = str(request.fence)
        if self._signing_keys() and (number := first_unsafe_integer(body)) is not None:
            # SDKs parse the body before they verify it, and their numbers are doubles: the signature would never fit.
            message = f"The call holds the whole number {number}, which the app would change and then refuse: send it as a string."
            return failed("UnsafeInteger", message, retriable=False)
        timeout_s = min(request.timeout_ms, self._timeout_ms) / 1000
        try:
            url = call_url(request.url, request.function_id, request.step_id)
            response = await self._signed.request(
                "POST", url, app=request.app_id, headers=headers, body=body, timeout_s=timeout_s, resend=False
            )
        except Dropped as error:
            # If the app was at work on it, it may have saved steps since: the call is made again under a new fence and with what is
            # saved by then, never sent a second time as it was.
            return Lost(reason=str(error))
        except CallError as error:
            return failed(error.code, f"{error}. {HINTS.get(error.code, '')}".strip(), code=error.code)
        except UsageError as error:
            # The app registered an address to which nothing can be sent; it may register another one before the next attempt.
            return failed("http_unreachable", str(error), code="http_unreachable")
        answer = parse_answer(response.status, response.headers, response.body, now_ms=time.time_ns() // 1_000_000)
        if response.status == UNAUTHORIZED and isinstance(answer, Failed):
            told = decode(answer.error)
            message = f"{told['message'].rstrip('.')}. {unauthorized(bool(self._signing_keys()))}"
            return msgspec.structs.replace(answer, error=canonical({"code": "unauthorized", **told, "message": message}))
        return answer


def unauthorized(signed: bool) -> str:
    """What to do about an app that answers 401."""
    if signed:
        return "The app refused the server's signature (HTTP 401): give it this server's signing key, and set both clocks right."
    fix = "set the app's mode (INNGEST_DEV=1), or use stepwell start"
    return f"The app asks for a signature (HTTP 401), and this server has no signing key: {fix}."


@lru_cache(maxsize=4096)
def call_url(url: str, function_id: str, step_id: str) -> str:
    """The function's URL with the function and the step in its query, in place of what registration wrote there (§4.1)."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url!r} is no address: {error}") from None
    kept = [pair for pair in parts.query.split("&") if pair and pair.split("=", 1)[0] not in ("fnId", "stepId")]
    query = "&".join([*kept, f"fnId={quote(function_id, safe='')}", f"stepId={quote(step_id, safe='')}"])
    return parts._replace(query=query).geturl()


def in_header(step_id: str) -> str:
    """A step's id as a header may hold it. SDKs send hashes, but an app may choose others: those get their percent form."""
    return step_id if step_id.isascii() and step_id.isprintable() else quote(step_id, safe="")


__all__ = ["HttpDriver"]
