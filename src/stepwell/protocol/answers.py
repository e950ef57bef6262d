"""Answers to a call: every shape in which an app may give one (inngest-protocol §4.4 to §4.9), read leniently, written exactly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import assert_never

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, canonicalize, decode
from stepwell.protocol.durations import parse_date_ms
from stepwell.protocol.failures import error_json, normal_error, shown
from stepwell.protocol.ops import Op, encode_ops, parse_ops, says_no_retry

ANSWER_BYTES_MAX = 8 * 1024 * 1024
RETRY_AFTER_MIN_MS = 1_000
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000
RETRY_AFTER_SECONDS_CHARS_MAX = 7
"""A longer `Retry-After` is a date (§4.8)."""
REQUEST_VERSION_DEFAULT = 1
"""Of an answer that does not say its version; never 0, with which old SDKs would stay on their oldest ways (§4.1)."""

SDK_HEADER = "x-inngest-sdk"
HANDLED_HEADER = "x-inngest-sdk-handled"
NO_RETRY_HEADER = "x-inngest-no-retry"
VERSION_HEADER = "x-inngest-req-version"
RETRY_AFTER_HEADER = "retry-after"
SDK_NAME = "stepwell-py"
_SECONDS = re.compile(r"-?[0-9]+")


class Ops(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A generator answer. `retry_after_ms` is a delay."""

    ops: tuple[Op, ...]
    request_version: int
    no_retry: bool | None = None
    retry_after_ms: int | None = None


class Returned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The function returned."""

    data: Json


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The call failed as a whole; `error` is an object with name, message and perhaps stack."""

    error: Json
    retriable: bool
    retry_after_ms: int | None = None


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The call was lost with its child, connection or restart, through no fault of the function: it uses no attempt."""

    reason: str


Answer = Ops | Returned | Failed | Lost


def parse_answer(status: int, headers: Mapping[str, str], body: bytes, *, now_ms: int) -> Answer:
    """What the app answered, in whatever shape. Header names are lower case. Never raises: what cannot be read has failed."""
    if len(body) > ANSWER_BYTES_MAX:
        return output_too_large(len(body))
    try:
        if status == 201:
            status, headers, body = _open_envelope(headers, body)
        return _parse(status, headers, body, now_ms)
    except ProtocolError as error:
        return failed(error.code or "invalid_response", str(error), shown(body), code=error.code or "invalid_response")


def _parse(status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Answer:
    no_retry = _flag(headers.get(NO_RETRY_HEADER))
    retry_after_ms = parse_retry_after_ms(headers.get(RETRY_AFTER_HEADER), now_ms)
    if SDK_HEADER not in headers and HANDLED_HEADER not in headers:
        return Failed(error=_foreign(status, body), retriable=no_retry is not True, retry_after_ms=retry_after_ms)
    if status == 206:
        ops = parse_ops(body)
        if no_retry is None and any(map(says_no_retry, ops)):
            no_retry = True
        version = headers.get(VERSION_HEADER, "")
        return Ops(
            ops=ops,
            request_version=int(version) if re.fullmatch("[1-9]", version) else REQUEST_VERSION_DEFAULT,
            no_retry=no_retry,
            retry_after_ms=retry_after_ms,
        )
    if status == 200 and no_retry is not True:
        return Returned(data=_result(body))
    return Failed(error=_error(status, body), retriable=no_retry is not True, retry_after_ms=retry_after_ms)


def _open_envelope(headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """The answer inside a 201 stream: keep-alive white space, then one object (§4.9). Its body may be a text of JSON."""
    try:
        envelope = decode(body)
    except ProtocolError:
        envelope = None
    if not isinstance(envelope, dict) or not ("status" in envelope or "error" in envelope):
        if SDK_HEADER not in headers:
            return 201, headers, body
        raise ProtocolError("the app's stream broke off before its answer was whole", code="stream_broken")
    if envelope.get("error"):
        return 500, {**headers, SDK_HEADER: headers.get(SDK_HEADER, "")}, canonical(envelope["error"])
    status, inner, content = envelope.get("status"), envelope.get("headers"), envelope.get("body")
    if not isinstance(status, int) or isinstance(status, bool):
        raise ProtocolError(f"the app's stream ended with the status {status!r:.40}, which is no number")
    told = {str(name).lower(): str(value) for name, value in inner.items()} if isinstance(inner, dict) else {}
    if content is None:
        return status, {**headers, **told}, b"" if "body" not in envelope else b"null"
    return status, {**headers, **told}, content.encode() if isinstance(content, str) else canonical(content)


def _result(body: bytes) -> Json:
    """The function's result: JSON, or a text that is none; nothing is null."""
    content = body.strip()
    if not content:
        return b"null"
    try:
        return canonicalize(content)
    except ProtocolError as error:
        if error.code == "too_deep":
            raise
        return canonical(content.decode("utf-8", "replace"))


def _foreign(status: int, body: bytes) -> Json:
    """The error that tells of an answer which no SDK gave."""
    if 200 <= status < 300:
        message = f"The answer (HTTP {status}) did not come from an SDK: it has no {SDK_HEADER} header. Is the app's URL right?"
        return error_json("not_sdk", message, shown(body), code="not_sdk")
    return error_json("Server returned a fatal error", f"Your server returned HTTP {status} before the SDK responded.", shown(body))


def _error(status: int, body: bytes) -> Json:
    """The app's error object as it came; something else is put into one."""
    otherwise = f"The app answered HTTP {status} without a message."
    try:
        return normal_error(decode(body.strip() or b"null"), otherwise)
    except ProtocolError:
        return normal_error({"message": shown(body)}, otherwise)


def failed(name: str, message: str, stack: str | None = None, *, code: str | None = None, retriable: bool = True) -> Failed:
    """A failed attempt, told in our own words. `code` is one of the protocol's names (§4.7)."""
    return Failed(error=error_json(name, message, stack, code), retriable=retriable)


def output_too_large(size: int) -> Failed:
    """The answer is longer than may be."""
    message = (
        f"The app's answer has {size} bytes; at most {ANSWER_BYTES_MAX} are taken. Store what is large elsewhere, and return its address."
    )
    return failed("output_too_large", message, code="output_too_large")


def parse_retry_after_ms(header: str | None, now_ms: int) -> int | None:
    """The delay that a `Retry-After` asks for: seconds, or a date; between 1 s and 24 h (§4.8). `None` where it says nothing."""
    value = (header or "").strip()
    if len(value) <= RETRY_AFTER_SECONDS_CHARS_MAX:
        if _SECONDS.fullmatch(value) is None:
            return None
        delay_ms = int(value) * 1000
    else:
        date_ms = parse_date_ms(value)
        if date_ms is None:
            return None
        delay_ms = date_ms - now_ms
    return min(max(delay_ms, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS)


def encode_answer(answer: Answer, sdk: str = SDK_NAME) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, as our serve handler gives it. `sdk` names the SDK and its version."""
    headers = {"content-type": "application/json", SDK_HEADER: sdk}
    match answer:
        case Ops():
            headers[VERSION_HEADER] = str(answer.request_version)
            if answer.no_retry is not None:
                headers[NO_RETRY_HEADER] = "true" if answer.no_retry else "false"
            _put_retry_after(headers, answer.retry_after_ms)
            return 206, headers, encode_ops(answer.ops)
        case Returned():
            return 200, headers, answer.data
        case Failed():
            headers[NO_RETRY_HEADER] = "false" if answer.retriable else "true"
            _put_retry_after(headers, answer.retry_after_ms)
            return 500 if answer.retriable else 400, headers, answer.error
        case Lost():
            # No header of the SDK's: whoever called takes it for a server that broke down, and tries again.
            return 503, {"content-type": "text/plain; charset=utf-8"}, answer.reason.encode("utf-8", "replace")
        case _:
            assert_never(answer)


def _put_retry_after(headers: dict[str, str], delay_ms: int | None) -> None:
    if delay_ms is not None:
        headers[RETRY_AFTER_HEADER] = str(max(1, -(-delay_ms // 1000)))


def _flag(header: str | None) -> bool | None:
    return None if header is None else header.strip().lower() == "true"
