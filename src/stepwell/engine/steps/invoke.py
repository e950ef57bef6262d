"""`InvokeFunction`: a step that starts a run of another function and ends with it, or with its time (§5.4)."""

from __future__ import annotations

from typing import Any

from stepwell.engine.advance import Advance, error_json
from stepwell.engine.commands import Put
from stepwell.engine.events import event_body
from stepwell.engine.flow.scheduling import Wish, ask_at_once, unbatched
from stepwell.engine.model import EventRow, Item, RunStatus, Timer, TimerKind
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed
from stepwell.protocol.codec import canonical
from stepwell.protocol.ids import app_uuid, derived_ulid
from stepwell.protocol.lifecycle import INVOKED, correlation_of, invoked_data
from stepwell.protocol.ops import Op, opts_of, timeout_ms


def on_invoke(advance: Advance, op: Op, item: Item, worker: str) -> Failed | None:
    """Start the other function's run, under an event of its own. A function that is not there is the step's error.

    A timeout longer than may be fails the run.
    """
    opts = opts_of(op)
    asked = opts.get("function_id")
    try:
        until_ms = timeout_ms(op, advance.now_ms)
    except ProtocolError as error:
        if error.code == "timeout_too_long":
            advance.ends(RunStatus.FAILED, error_json("InngestErrTimeoutTooLong", str(error)), "limit")
            return None
        return Failed(error=error_json("InvalidInvoke", str(error)), retriable=True)
    function = advance.registry.named(asked) if isinstance(asked, str) else None
    if function is None:
        fail(advance, op, item, "InngestInvokeFunctionNotFound", f"could not find function with ID: {asked}")
        return None
    if not advance.is_new(op.id):
        return None
    run, now_ms = advance.run, advance.now_ms
    correlation = correlation_of(run.id, op.id)
    payload = opts.get("payload")
    event = invoked_event(
        payload if isinstance(payload, dict) else {},
        event_id=derived_ulid(now_ms, correlation),
        function_id=function.id,
        correlation=correlation,
        expire_ms=until_ms,
        name=op.label,
        source=(app_uuid(run.app_name), advance.registry.functions[run.function_id].row.uuid, run.function_version),
        now_ms=now_ms,
    )
    child_id = derived_ulid(now_ms, function.id, event.id)
    body = event_body(event)
    wish = Wish(
        function=function,
        run_id=child_id,
        event_ids=(event.id,),
        cause="invoke",
        origin=correlation,
        due_ms=event.ts,
        body=lambda: body,
        gates=unbatched(function.rules.gates(body, now_ms)),
    )
    commands, skipped = ask_at_once(advance.decision, wish)
    advance.write(Put(event), *commands)
    if skipped is not None:
        fail(advance, op, item, "InngestInvokeSkipped", SKIPPED.get(skipped, f"invoked function was skipped: {skipped}"))
        return None
    timer = Timer(id=f"wait/{run.id}/{op.id}", due_ms=until_ms, kind=TimerKind.TIMEOUT, run_id=run.id, ref=op.id)
    advance.wait(op, timer, ref=child_id)
    return None


SKIPPED = {"rate limit": "invoked function is rate limited", "idempotency": "invoked function is rate limited by its idempotency key"}
"""What a step is told of an invoked run that its function's settings did not let begin (§5.4)."""


def fail(advance: Advance, op: Op, item: Item, name: str, message: str) -> None:
    """The step ends with an error at once; another try would end so too."""
    if advance.finish(op, b'{"error":' + error_json(name, message) + b"}", item, failed=True):
        advance.rediscover(op, "-failure")


def invoked_event(
    payload: dict[str, Any],
    *,
    event_id: str,
    function_id: str,
    correlation: str,
    expire_ms: int,
    name: str,
    source: tuple[str, str, int],
    now_ms: int,
) -> EventRow:
    """The stored event that a run made by an invoke begins with (§6.4); a `ts` to come starts it then."""
    data, user, v, ts = payload.get("data"), payload.get("user"), payload.get("v"), payload.get("ts")
    app_id, fn_id, version = source
    return EventRow(
        id=event_id,
        key=event_id,
        name=INVOKED,
        data=invoked_data(
            canonical(data if isinstance(data, dict) else {}),
            fn_id=function_id,
            correlation_id=correlation,
            expire_ms=expire_ms,
            name=name,
            source_app_id=app_id,
            source_fn_id=fn_id,
            source_fn_v=version,
        ),
        user=canonical(user if isinstance(user, dict) else {}),
        ts=ts if isinstance(ts, int) and ts > 0 else now_ms,
        v=v if isinstance(v, str) else None,
        meta=None,
        received_ms=now_ms,
    )
