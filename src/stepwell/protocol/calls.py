"""Call requests: what the server sends to advance a run, and what our own SDK reads of it (inngest-protocol §4.1).

The answers are in `answers`, from which the names that belong to a call are at hand here too.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.answers import (
    ANSWER_BYTES_MAX,
    SDK_NAME,
    Answer,
    Failed,
    Lost,
    Ops,
    Returned,
    encode_answer,
    failed,
    output_too_large,
    parse_answer,
)
from stepwell.protocol.codec import Json, canonical, canonicalize, text, utf16
from stepwell.protocol.ops import Op

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""Above this the app fetches events and steps itself (`use_api`, §4.10)."""
STATE_BYTES_INLINE_MAX = REQUEST_BYTES_MAX - 1024
CALL_TIMEOUT_MS = 2 * 3600 * 1000
DISCOVERY = "step"
"""The step id of a call that is for no step in particular."""


class CallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Advance this run: `step_id` is `step` for a discovery, else the hash of the one step to run.

    `stack` names the finished steps in the order in which they finished; `steps` holds their memos, and inputs of steps that have
    not run yet (§4.3). `events` are as functions see them; the first one is never missing. `defers` says of what the run has deferred
    whether it can be taken back (§5.10).
    """

    run_id: str
    function_id: str
    function_uuid: str
    app_id: str
    url: str
    step_id: str
    attempt: int
    max_attempts: int
    request_version: int
    stack: tuple[str, ...]
    disable_immediate_execution: bool
    item_id: str
    fence: int
    request_id: str
    events: tuple[Json, ...]
    steps: dict[str, Json]
    defers: dict[str, bool] = {}
    use_api: bool = False
    timeout_ms: int = CALL_TIMEOUT_MS


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of a call that goes on, to be made durable before it does."""

    run_id: str
    item_id: str
    fence: int
    ops: tuple[Op, ...]


def encode_call(request: CallRequest) -> bytes:
    """The canonical body of the request, spliced from stored bytes; with `use_api` where it would be too large."""
    if not request.use_api and sum(map(len, request.steps.values())) <= STATE_BYTES_INLINE_MAX:
        body = _encode(request, use_api=False)
        if len(body) <= REQUEST_BYTES_MAX:
            return body
    return _encode(request, use_api=True)


def encoded_size(request: CallRequest) -> int:
    """How long the body is, were everything in it."""
    return len(_encode(request, use_api=False))


def _encode(request: CallRequest, *, use_api: bool) -> bytes:
    """Keys stand in canonical order, all values are canonical, so the whole is."""
    flag = b"true" if use_api else b"false"
    item_id = text(request.item_id)
    return b"".join(
        (
            b'{"ctx":{"attempt":%d,"disable_immediate_execution":' % request.attempt,
            b"true" if request.disable_immediate_execution else b"false",
            b',"env":"","fn_id":',
            text(request.function_uuid),
            b',"generation_id":%d' % request.fence if request.fence > 0 else b"",
            b',"job_id":',
            item_id,
            b',"max_attempts":%d,"qi_id":' % request.max_attempts,
            item_id,
            b',"request_id":',
            text(request.request_id),
            b',"run_id":',
            text(request.run_id),
            b',"stack":{"current":%d,"stack":' % len(request.stack),
            encode_list([text(step_id) for step_id in request.stack]),
            b'},"step_id":',
            text(request.step_id),
            b',"use_api":',
            flag,
            b'},"defers":',
            encode_defers(request.defers),
            b',"event":',
            request.events[0],
            b',"events":',
            b"[]" if use_api else encode_list(request.events),
            b',"steps":',
            b"{}" if use_api else encode_steps(request.steps),
            b',"use_api":',
            flag,
            b',"version":%d}' % request.request_version,
        )
    )


def encode_steps(steps: Mapping[str, Json]) -> Json:
    """The canonical object of memoised steps: in the request, and as `/v0/runs/{run}/actions` answers it (§4.10)."""
    ids = sorted(steps) if all(map(str.isascii, steps)) else sorted(steps, key=utf16)
    return b"{" + b",".join([text(step_id) + b":" + steps[step_id] for step_id in ids]) + b"}"


def encode_defers(defers: Mapping[str, bool]) -> Json:
    """The canonical object of what the run has deferred."""
    return canonical({defer_id: {"abortable": abortable} for defer_id, abortable in defers.items()}) if defers else b"{}"


def encode_list(items: list[Json] | tuple[Json, ...]) -> Json:
    """The canonical array of canonical values: events as `/v0/runs/{run}/batch` answers them, for one."""
    return b"[" + b",".join(items) + b"]"


class _Stack(msgspec.Struct):
    stack: list[str] | None = None


class _Context(msgspec.Struct):
    run_id: str
    attempt: int | None = None
    max_attempts: int | None = None
    fn_id: str | None = None
    disable_immediate_execution: bool | None = None
    use_api: bool | None = None
    qi_id: str | None = None
    generation_id: int | None = None
    request_id: str | None = None
    stack: _Stack | None = None


class _Body(msgspec.Struct):
    ctx: _Context
    event: msgspec.Raw
    events: list[msgspec.Raw] | None = None
    steps: dict[str, msgspec.Raw] | None = None
    use_api: bool | None = None
    version: int | None = None


_body = msgspec.json.Decoder(_Body)
MAX_ATTEMPTS_DEFAULT = 5


def decode_call(body: bytes, function_id: str, step_id: str) -> CallRequest:
    """The request of a body with its `fnId` and `stepId`, as our serve handler takes it; null is the same as absent.

    Raises `ProtocolError` naming what is wrong. Whether a body is to be trusted is the caller's to ask (`signatures`).
    """
    try:
        call = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the call request is malformed: {error}") from None
    context = call.ctx
    return CallRequest(
        run_id=context.run_id,
        function_id=function_id,
        function_uuid=context.fn_id or "",
        app_id="",
        url="",
        step_id=step_id or DISCOVERY,
        attempt=context.attempt or 0,
        max_attempts=context.max_attempts or MAX_ATTEMPTS_DEFAULT,
        request_version=-1 if call.version is None else call.version,
        stack=tuple((context.stack and context.stack.stack) or ()),
        disable_immediate_execution=context.disable_immediate_execution is True,
        item_id=context.qi_id or "",
        fence=context.generation_id or 0,
        request_id=context.request_id or "",
        events=tuple([canonicalize(bytes(event)) for event in call.events or (call.event,)]),
        steps={step: canonicalize(bytes(memo)) for step, memo in (call.steps or {}).items()},
        use_api=call.use_api is True or context.use_api is True,
    )


__all__ = [
    "ANSWER_BYTES_MAX",
    "CALL_TIMEOUT_MS",
    "DISCOVERY",
    "REQUEST_BYTES_MAX",
    "SDK_NAME",
    "STATE_BYTES_INLINE_MAX",
    "Answer",
    "CallRequest",
    "Checkpoint",
    "Failed",
    "Lost",
    "Ops",
    "Returned",
    "decode_call",
    "encode_answer",
    "encode_call",
    "encode_list",
    "encode_steps",
    "encoded_size",
    "failed",
    "output_too_large",
    "parse_answer",
]
