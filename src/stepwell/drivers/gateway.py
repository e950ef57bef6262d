"""HTTP requests that steps ask the server to make: `Gateway` and `AIGateway` (inngest-protocol §5.6, §5.7).

Keys and headers are used and forgotten: no error, log or stored row has them.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from stepwell.errors import CallError, ProtocolError, UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_connection import Response
from stepwell.protocol.answers import parse_retry_after_ms
from stepwell.protocol.calls import Answer, Ops
from stepwell.protocol.codec import canonical, canonicalize
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX, Op, opts_of

TIMEOUT_S = 2 * 3600.0
"""A request takes no longer than a call to an app may."""

ERROR_BODY_BYTES_MAX = 8 * 1024


class Gateway:
    """Makes the requests over a pool of connections."""

    def __init__(self, pool: Pool, *, timeout_s: float = TIMEOUT_S) -> None:
        self._pool, self._timeout_s = pool, timeout_s

    async def perform(self, op: Op) -> Answer:
        """Make the op's request. The answer is the step's result, or an error of the step, which is tried again."""
        opts = opts_of(op)
        asks_ai = op.op == "AIGateway"
        name = "AIGatewayError" if asks_ai else "GatewayError"
        what = "Error making AI request" if asks_ai else "Error making HTTP request"
        try:
            method, url, headers, body = ai_request(opts) if asks_ai else plain_request(opts)
            response = await self._pool.request(method, url, headers=headers, body=body, timeout_s=self._timeout_s)
        except (UsageError, ProtocolError) as error:
            return step_error(op, name, f"{what}: {error}", retriable=False)
        except CallError as error:
            return step_error(op, name, f"{what}: {error}")
        if not asks_ai:
            return step_run(op, plain_result(url, response))
        if response.status > 299:
            shown = response.body[:ERROR_BODY_BYTES_MAX].decode("utf-8", "replace")
            after_ms = parse_retry_after_ms(response.headers.get("retry-after"), time.time_ns() // 1_000_000)
            message = f"{what}: unsuccessful status code: {response.status}"
            return step_error(op, name, message, data=json_or_text(response.body[:ERROR_BODY_BYTES_MAX]), stack=shown, after_ms=after_ms)
        return step_run(op, json_or_text(response.body))


def plain_request(opts: dict[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    """The request of a `Gateway` op: method, URL, headers, body."""
    body = opts.get("body")
    method = opts.get("method")
    return method if isinstance(method, str) and method else "POST", url_of(opts), headers_of(opts), (body or "").encode()


def ai_request(opts: dict[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    """The request of an `AIGateway` op, with its key where the provider's format wants it."""
    url, key, kind = url_of(opts), opts.get("auth_key"), str(opts.get("format") or "")
    headers = {"content-type": "application/json"}
    if isinstance(key, str) and key:
        if kind.startswith("gemini"):
            parts = urlsplit(url)
            url = parts._replace(query=urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("key", key)])).geturl()
        elif kind.startswith("anthropic"):
            headers["x-api-key"] = key
        elif kind.startswith("bedrock"):
            headers["authorization"] = key
        else:
            headers["authorization"] = f"Bearer {key}"
    body = opts.get("body")
    encoded = body.encode() if isinstance(body, str) else canonical(body if body is not None else {})
    return "POST", url, {**headers, **headers_of(opts)}, encoded


def url_of(opts: dict[str, Any]) -> str:
    """Where the request goes. Raises `UsageError` where it says not where."""
    url = opts.get("url")
    if not isinstance(url, str) or not url:
        raise UsageError("the request has no url")
    return url


def headers_of(opts: dict[str, Any]) -> dict[str, str]:
    """The headers asked for; several values of one are joined by commas."""
    headers = opts.get("headers")
    if not isinstance(headers, dict):
        return {}
    return {str(name).lower(): ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in headers.items()}


def plain_result(url: str, response: Response) -> bytes:
    """What a `Gateway` step gives: any status is a result."""
    text = response.body.decode("utf-8", "replace")
    return canonical({"url": url, "headers": dict(response.headers), "body": text, "status_code": response.status})


def json_or_text(body: bytes) -> bytes:
    """A body as JSON: itself, or a string of it."""
    try:
        return canonicalize(body) if body.strip() else b"null"
    except ProtocolError:
        return canonical(body.decode("utf-8", "replace"))


def step_run(op: Op, data: bytes) -> Answer:
    """The step's result, if it is not too large."""
    if len(data) > STEP_OUTPUT_BYTES_MAX:
        message = f"The response has {len(data)} bytes; at most {STEP_OUTPUT_BYTES_MAX} are taken."
        return step_error(op, "output_too_large", message, retriable=False)
    return Ops(ops=(Op(op="StepRun", id=op.id, data=data),), request_version=-1)


def step_error(
    op: Op, name: str, message: str, *, data: bytes | None = None, stack: str = "", after_ms: int | None = None, retriable: bool = True
) -> Answer:
    """The step's error, to be tried again or not."""
    error: dict[str, Any] = {"name": name, "message": message}
    if stack:
        error["stack"] = stack
    encoded = canonical(error)
    if data is not None:
        encoded = b'{"data":' + data + b"," + encoded[1:]
    failure = Op(op="StepError", id=op.id, error=encoded)
    return Ops(ops=(failure,), request_version=-1, no_retry=not retriable, retry_after_ms=after_ms)


__all__ = ["Gateway"]
