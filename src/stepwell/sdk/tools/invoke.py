"""Invoking another function: it runs as a run of its own, and the step ends with its result."""

from __future__ import annotations

from typing import Any

from stepwell.errors import InvokeError, StepError, UsageError
from stepwell.protocol.codec import Json, canonical
from stepwell.protocol.durations import format_duration
from stepwell.protocol.ops import STEP_INPUT_BYTES_MAX, WAIT_MAX_MS
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.function import Function, payload_of
from stepwell.sdk.request import Errand, Request, decode_memo


def invoking(request: Request, function: Function[Any] | str, data: Any, timeout: Duration | None) -> Request:
    """The request ends with a run of the function. Data that the function would refuse is refused here."""
    what = f"step {request.id!r}: invoke"
    slug, body = payload_of(function, data, what)
    if len(body) > STEP_INPUT_BYTES_MAX:
        raise UsageError(f"{what}: the data for {slug!r} has {len(body)} bytes; at most {STEP_INPUT_BYTES_MAX} are taken")
    limit = b""
    if timeout is not None:
        ms = duration_ms(timeout, f"{what}: timeout")
        if ms > WAIT_MAX_MS:
            raise UsageError(f"{what}: timeout is {timeout!r}; it must be at most {format_duration(WAIT_MAX_MS)}")
        limit = b',"timeout":' + canonical(format_duration(ms))
    opts = b'{"function_id":' + canonical(slug) + b',"payload":{"data":' + body + b"}" + limit + b"}"
    request.errand = Errand(op="InvokeFunction", opts=opts)
    if isinstance(function, Function):
        request.codec = function.result
    request.read = _result
    return request


def _result(request: Request, memo: Json) -> Any:
    """What the function returned; raises `InvokeError` with its error, or with that of the timeout."""
    try:
        return decode_memo(request, memo, marked=False)
    except StepError as error:
        raise InvokeError(error.name, error.message, error.stack, error.step_id) from None
