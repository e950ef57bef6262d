"""One step that is run here, under a call, in the task that asked for it: its result made durable, its failure told."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from stepwell.errors import ProtocolError, RunPaused, Superseded, UsageError
from stepwell.protocol.answers import Ops
from stepwell.protocol.calls import Checkpoint, Failed
from stepwell.protocol.failures import error_json
from stepwell.protocol.ops import STEP_OUTPUT_BYTES_MAX, Op
from stepwell.sdk.failure import Failure, step_failure
from stepwell.sdk.request import Call, Request, Scope, scope

if TYPE_CHECKING:
    from stepwell.sdk.agenda import Agenda

REQUEST_VERSION = 2


async def perform(agenda: Agenda, request: Request, call: Call) -> tuple[bool, Any]:
    """Run the step under a call. Says whether it is durable, and then its value."""
    targeted = call is not agenda.discovery
    failure: Failure | None = None
    token = scope.set(Scope(request.id, request.hash, call.attempt))
    try:
        began = time.time()
        try:
            value = await request.run()
            data = request.codec.encode(value, mark=True)
            if len(data) > STEP_OUTPUT_BYTES_MAX:
                raise UsageError(too_large(f"step {request.id!r}", len(data)))
            value = request.codec.decode(data, marked=True)
        except (Exception, SystemExit) as error:
            failure = step_failure(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = step_failure(error)
    except BaseException:
        agenda.give_up(request, call, targeted)
        raise
    finally:
        scope.reset(token)
    try:
        race = targeted and agenda.races(request)
        if failure is not None:
            agenda.failed(request, call, _failed(request, call, failure, race), targeted)
            return False, None
        op = request.ran(data, began, time.time(), race)
        if targeted or call.checkpoint is None:
            agenda.told(request, call, Ops(ops=(op,), request_version=REQUEST_VERSION))
            return False, None
        return await _make_durable(agenda, request, call, op), value
    finally:
        agenda.running.pop(request.hash, None)


async def _make_durable(agenda: Agenda, request: Request, call: Call, op: Op) -> bool:
    """Checkpoint the step. Says whether it is durable; if not, its call has been answered with it."""
    assert call.checkpoint is not None
    sent, session = call.request, agenda.session
    try:
        await call.checkpoint(Checkpoint(run_id=sent.run_id, item_id=sent.item_id, fence=sent.fence, ops=(op,)))
    except Superseded as error:
        session.close(error)
        raise
    except ProtocolError as error:
        name = error.code or type(error).__name__
        call.answer(Failed(error=error_json(name, str(error)), retriable=False))
        session.close(Superseded(str(error)))
        raise Superseded(str(error)) from error
    except RunPaused:
        # Stored. What runs beside it in this call ends first; the last of them ends the call.
        if not any(other is call for hash, other in agenda.running.items() if hash != request.hash):
            agenda.told(request, call, Ops(ops=(op,), request_version=REQUEST_VERSION))
            return False
    except Exception:
        # Not stored, but done: the answer tells of it once more, and the function goes on when it is in its memos.
        agenda.told(request, call, Ops(ops=(op,), request_version=REQUEST_VERSION))
        return False
    call.attempt = session.attempt = 0
    return True


def _failed(request: Request, call: Call, failure: Failure, race: bool) -> Ops:
    """The answer that tells of a failed try, or of the last one."""
    tries = call.request.max_attempts if request.retries is None else min(request.retries + 1, call.request.max_attempts)
    final = not failure.retriable or call.attempt + 1 >= tries
    return Ops(
        ops=(request.failed(failure, final, race),),
        request_version=REQUEST_VERSION,
        no_retry=True if not failure.retriable else None,
        retry_after_ms=None if final else failure.retry_after_ms,
    )


def too_large(what: str, size: int) -> str:
    """Why a result is not stored."""
    return f"the result of {what} has {size} bytes; at most {STEP_OUTPUT_BYTES_MAX} are stored: put it elsewhere, and return its address"
