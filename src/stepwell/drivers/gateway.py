"""HTTP requests that steps ask the server to make: `Gateway` and `AIGateway` (inngest-protocol §5.6, §5.7).

Keys and headers are used and forgotten: no error, log or stored row has them.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit

import msgspec

from stepwell.errors import CallError, ProtocolError, UsageError
from stepwell.net.http_client import Pool
from stepwell.net.http_connection import Response
from stepwell.net.http_errors import TooLarge
from stepwell.protocol.answers import parse_retry_after_ms
from stepwell.protocol.calls import Answer, Ops
from stepwell.protocol.codec import canonical, canonicalize
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX, Op, opts_of
from stepwell.protocol.realtime import checked_name

TIMEOUT_S = 2 * 3600.0
"""A request takes no longer than a call to an app may."""

ERROR_BODY_BYTES_MAX = 64 * 1024
"""What a step's error repeats of a provider's answer; a longer one is cut, visibly."""

NOT_ASKED_FOR = frozenset(("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"))
"""Headers that belong to a connection, and are ours to say."""

SECRET_HEADER = re.compile(r"authorization|api-?key|token|secret|cookie|password", re.IGNORECASE)
SECRET_CHARS_MIN = 8
"""A shorter key is no secret, and its characters may stand anywhere by chance."""
REMOVED = "[removed]"
LOGIN = re.compile(r"://[^/\s'\"@]*@")
QUERY = re.compile(r"""(\w+://[^\s?'"]*)\?[^\s'"]*?(?=:?(?:[\s'"]|$))""")


class Gateway:
    """Makes the requests over a pool of connections."""

    def __init__(self, pool: Pool, *, timeout_s: float = TIMEOUT_S) -> None:
        self._pool, self._timeout_s = pool, timeout_s

    async def perform(self, op: Op) -> Answer:
        """Make the op's request. The answer is the step's result, or an error of the step, which is tried again."""
        opts = opts_of(op)
        return await (self._ask_ai(op, opts) if op.op == "AIGateway" else self._fetch(op, opts))

    async def _fetch(self, op: Op, opts: dict[str, Any]) -> Answer:
        """Any status is a result; only a request that was not answered is an error."""
        try:
            method, url, headers, body = plain_request(opts)
            response = await self._pool.request(method, url, headers=headers, body=body, timeout_s=self._timeout_s)
        except (UsageError, CallError) as error:
            return step_error(op, "GatewayError", cleaned(f"Error making HTTP request: {error}", opts), retriable=may_help(error))
        return step_run(op, plain_result(url, response))

    async def _ask_ai(self, op: Op, opts: dict[str, Any]) -> Answer:
        """A status up to 299 is a result; what else is answered becomes the error's data."""
        try:
            check_publish(opts)
            method, url, headers, body = ai_request(opts, body_of(op))
            response = await self._pool.request(method, url, headers=headers, body=body, timeout_s=self._timeout_s)
        except (UsageError, CallError) as error:
            return step_error(op, "AIGatewayError", cleaned(f"Error making AI request: {error}", opts), retriable=may_help(error))
        text = cleaned(response.body.decode("utf-8", "replace"), opts, urls=False)
        if response.status <= 299:
            return step_run(op, json_or_text(text))
        after_ms = parse_retry_after_ms(response.headers.get("retry-after"), time.time_ns() // 1_000_000)
        message = f"Error making AI request: unsuccessful status code: {response.status}"
        shown = text if len(text) <= ERROR_BODY_BYTES_MAX else f"{text[:ERROR_BODY_BYTES_MAX]}… ({len(text)} characters in all)"
        return step_error(op, "AIGatewayError", message, data=json_or_text(shown), stack=shown, after_ms=after_ms)


def plain_request(opts: dict[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
    """The request of a `Gateway` op: method, URL, headers, body. Raises `UsageError`."""
    body, method = opts.get("body"), opts.get("method")
    if body is not None and not isinstance(body, str):
        raise UsageError(f"the request's body is {type(body).__name__}; it must be a text")
    if method is not None and (not isinstance(method, str) or not re.fullmatch(r"[A-Za-z]{1,20}|", method)):
        raise UsageError(f"the request's method is {method!r}; it must be a word like GET")
    return (method or "POST").upper(), url_of(opts), headers_of(opts), (body or "").encode()


def ai_request(opts: dict[str, Any], body: bytes) -> tuple[str, str, dict[str, str], bytes]:
    """The request of an `AIGateway` op, with its key where the provider's format wants it. Raises `UsageError`."""
    url, key, kind = url_of(opts), opts.get("auth_key"), str(opts.get("format") or "")
    headers = {"content-type": "application/json"}
    if isinstance(key, str) and key:
        if kind.startswith("gemini"):
            url = with_key(url, key)
        elif kind.startswith("anthropic"):
            headers["x-api-key"] = key
        elif kind.startswith("bedrock"):
            headers["authorization"] = key
        else:
            headers["authorization"] = f"Bearer {key}"
    return "POST", url, {**headers, **headers_of(opts)}, body


def with_key(url: str, key: str) -> str:
    """The URL with the query parameter `key`; one that the app put there already is replaced. Raises `UsageError`."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"the request's url is no address: {error}") from None
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "key"]
    return parts._replace(query=urlencode([*query, ("key", key)])).geturl()


def body_of(op: Op) -> bytes:
    """The body that is posted: the JSON as the app wrote it, or a text as it is."""
    try:
        raw = bytes(msgspec.json.decode(op.opts or b"{}", type=dict[str, msgspec.Raw]).get("body", msgspec.Raw(b"{}")))
    except msgspec.DecodeError:
        return b"{}"
    return msgspec.json.decode(raw, type=str).encode() if raw.startswith(b'"') else b"{}" if raw == b"null" else raw


def check_publish(opts: dict[str, Any]) -> None:
    """Raise `UsageError` where the op names no topic that its result can be published to."""
    wanted = opts.get("publish")
    if wanted is None:
        return
    if not isinstance(wanted, dict):
        raise UsageError(f"publish is {wanted!r}; it must be an object with channel and topic")
    try:
        checked_name(wanted.get("channel"), "channel")
        checked_name(wanted.get("topic"), "topic", publishes=True)
    except ProtocolError as error:
        raise UsageError(f"publish: {error}") from None


def url_of(opts: dict[str, Any]) -> str:
    """Where the request goes. Raises `UsageError` where it says not where."""
    url = opts.get("url")
    if not isinstance(url, str) or not url:
        raise UsageError("the request has no url")
    return url


def headers_of(opts: dict[str, Any]) -> dict[str, str]:
    """The headers asked for, but those of the connection; several values of one are joined by commas."""
    headers = opts.get("headers")
    if not isinstance(headers, dict):
        return {}
    told = {str(name).lower(): ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in headers.items()}
    return {name: value for name, value in told.items() if name not in NOT_ASKED_FOR}


def may_help(error: Exception) -> bool:
    """Whether another try may end otherwise."""
    return isinstance(error, CallError) and not isinstance(error, TooLarge)


def secrets_of(opts: dict[str, Any]) -> list[str]:
    """What of a request must not be seen: its key, and headers that carry one, in every form in which they may be repeated."""
    told = [opts.get("auth_key")]
    for name, value in headers_of(opts).items():
        if SECRET_HEADER.search(name):
            told += [value, value.partition(" ")[2]]
    found = {secret for secret in told if isinstance(secret, str) and len(secret) >= SECRET_CHARS_MIN}
    forms = found | {form(secret) for secret in found for form in (quote, quote_plus, lambda secret: quote(secret, safe=""))}
    return sorted(forms, key=len, reverse=True)


def cleaned(text: str, opts: dict[str, Any], *, urls: bool = True) -> str:
    """The text without secrets, and, in a sentence of ours, without the logins and queries of `urls`."""
    for secret in secrets_of(opts):
        text = text.replace(secret, REMOVED)
    return QUERY.sub(r"\1", LOGIN.sub("://", text)) if urls else text


def plain_result(url: str, response: Response) -> bytes:
    """What a `Gateway` step gives: any status is a result."""
    text = response.body.decode("utf-8", "replace")
    parts = urlsplit(url)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return canonical({"url": shown, "headers": dict(response.headers), "body": text, "status_code": response.status})


def json_or_text(body: str) -> bytes:
    """A body as JSON: itself, or a string of it."""
    try:
        return canonicalize(body.encode()) if body.strip() else b"null"
    except ProtocolError:
        return canonical(body)


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
