"""Call requests and their answers: the bytes of a request, and every shape in which an app may answer (inngest-protocol §4)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, canonicalize, decode
from stepwell.protocol.ops import Op, encode_ops, parse_date_ms, parse_ops

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""Above this the app fetches events and steps itself (`use_api`, §4.10)."""
STATE_BYTES_INLINE_MAX = REQUEST_BYTES_MAX - 1024
ANSWER_BYTES_MAX = 8 * 1024 * 1024
FOREIGN_BODY_BYTES_MAX = 8 * 1024
"""What is kept of an answer that did not come from an SDK."""
RETRY_AFTER_MIN_MS = 1_000
RETRY_AFTER_MAX_MS = 24 * 3600 * 1000
CALL_TIMEOUT_MS = 2 * 3600 * 1000

SDK_HEADER = "x-inngest-sdk"
NO_RETRY_HEADER = "x-inngest-no-retry"
VERSION_HEADER = "x-inngest-req-version"


class CallRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Advance this run: `step_id` is `step` for a discovery, else the hash of the one step to run."""

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
    use_api: bool = False
    timeout_ms: int = CALL_TIMEOUT_MS


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
    """The call vanished through no fault of the function."""

    reason: str


Answer = Ops | Returned | Failed | Lost


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of a call that goes on, to be made durable before it does."""

    run_id: str
    item_id: str
    fence: int
    ops: tuple[Op, ...]


def encode_call(request: CallRequest) -> bytes:
    """The canonical body of the request, spliced from stored bytes; with `use_api` where it would be too large."""
    use_api = request.use_api or sum(map(len, request.steps.values())) > STATE_BYTES_INLINE_MAX
    if not use_api:
        body = _encode(request, use_api=False)
        if len(body) <= REQUEST_BYTES_MAX:
            return body
    return _encode(request, use_api=True)


def _encode(request: CallRequest, *, use_api: bool) -> bytes:
    text = msgspec.json.encode
    flag = b"true" if use_api else b"false"
    stack = b"[" + b",".join(text(step_id) for step_id in request.stack) + b"]"
    steps, events = b"{}", b"[]"
    if not use_api:
        steps = encode_steps(request.steps)
        events = b"[" + b",".join(request.events) + b"]"
    return b"".join(
        (
            b'{"ctx":{"attempt":%d,"disable_immediate_execution":%s,"env":"","fn_id":'
            % (request.attempt, b"true" if request.disable_immediate_execution else b"false"),
            text(request.function_uuid),
            b',"generation_id":%d,"job_id":' % request.fence,
            text(request.item_id),
            b',"max_attempts":%d,"qi_id":' % request.max_attempts,
            text(request.item_id),
            b',"request_id":',
            text(request.request_id),
            b',"run_id":',
            text(request.run_id),
            b',"stack":{"current":%d,"stack":' % len(request.stack),
            stack,
            b'},"step_id":',
            text(request.step_id),
            b',"use_api":',
            flag,
            b'},"defers":{},"event":',
            request.events[0],
            b',"events":',
            events,
            b',"steps":',
            steps,
            b',"use_api":',
            flag,
            b',"version":%d}' % request.request_version,
        )
    )


def encode_steps(steps: Mapping[str, Json]) -> Json:
    """The canonical object of memoised steps."""
    return b"{" + b",".join(b'"%s":%s' % (step_id.encode(), steps[step_id]) for step_id in sorted(steps)) + b"}"


class _Context(msgspec.Struct):
    run_id: str
    attempt: int = 0
    max_attempts: int | None = None
    fn_id: str = ""
    disable_immediate_execution: bool = False
    use_api: bool = False
    qi_id: str = ""
    generation_id: int = 0
    request_id: str = ""
    stack: dict[str, object] | None = None


class _Body(msgspec.Struct):
    ctx: _Context
    event: msgspec.Raw
    events: list[msgspec.Raw] | None = None
    steps: dict[str, msgspec.Raw] | None = None
    use_api: bool = False
    version: int = -1


def decode_call(body: bytes, function_id: str, step_id: str) -> CallRequest:
    """The request of a body, as our serve handler takes it. Raises `ProtocolError` naming what is wrong."""
    try:
        call = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(f"the call request is malformed: {error}") from None
    stack = (call.ctx.stack or {}).get("stack")
    return CallRequest(
        run_id=call.ctx.run_id,
        function_id=function_id,
        function_uuid=call.ctx.fn_id,
        app_id="",
        url="",
        step_id=step_id,
        attempt=call.ctx.attempt,
        max_attempts=call.ctx.max_attempts or 5,
        request_version=call.version,
        stack=tuple(stack) if isinstance(stack, list) else (),
        disable_immediate_execution=call.ctx.disable_immediate_execution,
        item_id=call.ctx.qi_id,
        fence=call.ctx.generation_id,
        request_id=call.ctx.request_id,
        events=tuple(bytes(event) for event in call.events or ()) or (bytes(call.event),),
        steps={step: bytes(memo) for step, memo in (call.steps or {}).items()},
        use_api=call.use_api or call.ctx.use_api,
    )


def parse_answer(status: int, headers: Mapping[str, str], body: bytes, *, now_ms: int) -> Answer:
    """What the app answered, in whatever shape (§4.4, §4.7, §4.9). Header names are lower case. Never raises."""
    if len(body) > ANSWER_BYTES_MAX:
        return output_too_large(len(body))
    if status == 201:
        opened = _open_envelope(headers, body)
        if isinstance(opened, Failed):
            return opened
        status, headers, body = opened
    no_retry = _flag(headers.get(NO_RETRY_HEADER))
    retry_after_ms = parse_retry_after_ms(headers.get("retry-after"), now_ms)
    if SDK_HEADER not in headers:
        return _foreign(status, body)
    if status == 206:
        try:
            ops = parse_ops(body)
        except ProtocolError as error:
            return failed(error.code or "invalid_response", str(error))
        version = headers.get(VERSION_HEADER, "")
        return Ops(
            ops=ops,
            request_version=int(version) if version.isdigit() else 1,
            no_retry=no_retry,
            retry_after_ms=retry_after_ms,
        )
    if status == 200 and no_retry is not True:
        return _returned(body)
    return Failed(error=_error(status, body), retriable=no_retry is not True, retry_after_ms=retry_after_ms)


def _open_envelope(headers: Mapping[str, str], body: bytes) -> tuple[int, Mapping[str, str], bytes] | Failed:
    """The answer inside a 201 stream: keep-alive white space, then one object."""
    try:
        envelope = decode(body)
        if isinstance(envelope, dict) and envelope.get("error"):
            return failed("Error", str(envelope["error"]))
        status = int(envelope["status"])
        inner = {str(name).lower(): str(value) for name, value in (envelope.get("headers") or {}).items()}
        content = envelope.get("body")
    except (ProtocolError, KeyError, TypeError, ValueError, AttributeError):
        return failed("invalid_response", "the app's stream broke off before its answer")
    return status, {**headers, **inner}, content.encode() if isinstance(content, str) else canonical(content)


def _returned(body: bytes) -> Answer:
    text = body.strip()
    if not text:
        return Returned(data=b"null")
    try:
        data = canonicalize(text)
    except ProtocolError:
        data = canonical(text.decode("utf-8", "replace"))
    if len(data) > REQUEST_BYTES_MAX:
        return failed("output_too_large", f"the function's output has {len(data)} bytes; at most {REQUEST_BYTES_MAX} are taken")
    return Returned(data=data)


def _foreign(status: int, body: bytes) -> Failed:
    """An answer that no SDK gave."""
    shown = body[:FOREIGN_BODY_BYTES_MAX].decode("utf-8", "replace")
    if 200 <= status < 300:
        message = f"The answer (HTTP {status}) did not come from an SDK: it has no {SDK_HEADER} header. Is the app's URL right?"
        return failed("not_sdk", message, shown)
    return failed("Server returned a fatal error", f"Your server returned HTTP {status} before the SDK responded.", shown)


def _error(status: int, body: bytes) -> Json:
    """The app's error object as it came; something else is put into one."""
    try:
        value = decode(body.strip())
        if isinstance(value, str):
            value = decode(value)
    except ProtocolError:
        value = None
    if isinstance(value, dict) and value:
        if isinstance(value.get("name"), str) and isinstance(value.get("message"), str):
            return canonical(value)
        message = value.get("message") or value.get("error") or f"The app answered HTTP {status}."
        name = value.get("name") or value.get("code") or "Error"
        return canonical({**value, "name": str(name), "message": str(message)})
    text = body[:FOREIGN_BODY_BYTES_MAX].decode("utf-8", "replace")
    return canonical({"name": "Error", "message": text or f"The app answered HTTP {status}."})


def failed(name: str, message: str, stack: str | None = None) -> Failed:
    """A failed attempt that may be retried."""
    error = {"name": name, "message": message}
    if stack:
        error["stack"] = stack
    return Failed(error=canonical(error), retriable=True)


def output_too_large(size: int) -> Failed:
    """The answer is longer than may be."""
    return failed("output_too_large", f"The answer has more than {ANSWER_BYTES_MAX} bytes ({size} seen).")


def _flag(text: str | None) -> bool | None:
    return None if text is None else text.strip().lower() == "true"


def parse_retry_after_ms(text: str | None, now_ms: int) -> int | None:
    """The delay that a `Retry-After` asks for: seconds, or a date; between 1 s and 24 h (§4.8). `None` where it says nothing."""
    if not text:
        return None
    text = text.strip()
    if len(text) <= 7 and text.isdigit():
        delay_ms = int(text) * 1000
    else:
        date_ms = parse_date_ms(text)
        if date_ms is None:
            return None
        delay_ms = date_ms - now_ms
    return min(max(delay_ms, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS)


def encode_answer(answer: Answer, sdk: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, as our serve handler gives it. `sdk` names the SDK and its version."""
    headers = {"content-type": "application/json", SDK_HEADER: sdk}
    match answer:
        case Ops():
            headers[VERSION_HEADER] = str(answer.request_version)
            if answer.no_retry is not None:
                headers[NO_RETRY_HEADER] = str(answer.no_retry).lower()
            _put_retry_after(headers, answer.retry_after_ms)
            return 206, headers, encode_ops(answer.ops)
        case Returned():
            return 200, headers, answer.data
        case Failed():
            headers[NO_RETRY_HEADER] = "false" if answer.retriable else "true"
            _put_retry_after(headers, answer.retry_after_ms)
            return 500 if answer.retriable else 400, headers, answer.error
        case Lost():
            return 503, {"content-type": "text/plain"}, answer.reason.encode()


def _put_retry_after(headers: dict[str, str], delay_ms: int | None) -> None:
    if delay_ms is not None:
        headers["retry-after"] = str(max(1, -(-delay_ms // 1000)))
