"""A call's end: answered with ops, a result or an error, or lost. And checkpoints, which tell of steps while a call goes on.

Whatever follows a call checks the fence first: a late answer is normal and changes nothing.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from stepwell.engine.advance import Advance, advance_of, attempt_row, error_json
from stepwell.engine.commands import Command, Delete, Effect, Put, Refuse, Reply, ReturnItem
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.inputs import CallAnswered, StepsCheckpointed
from stepwell.engine.lanes import Lanes, is_held
from stepwell.engine.mail import select_kept
from stepwell.engine.metadata import notes_of_ops, select_notes_of_ops
from stepwell.engine.model import Item, RunStatus
from stepwell.engine.registry import Registry
from stepwell.engine.resume import signal_name, signal_of
from stepwell.engine.steps import ADVANCES, memo_of, no_such_op
from stepwell.engine.timing import backoff_ms
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.ids import step_hash
from stepwell.protocol.ops import ENDS, LAZY, Op

CHECKPOINT_OPS = frozenset({"StepRun", "Step", "StepPlanned", *LAZY})
"""What a checkpoint may tell (§5.12)."""

DONE = frozenset({"StepRun", "Step"})
"""Steps that have their result."""

RESULTS = DONE | {"StepError", "StepFailed"}

COMPLETE_ID = step_hash("complete")
"""The id under which an app tells of its function, and of no step of it."""


class CheckpointReply(msgspec.Struct, frozen=True):
    """The reply to `StepsCheckpointed`: taken; or not, since a later lease superseded the call, or else since its run has `ended`.

    `held`: the steps are saved, and the call is to end with them, since its run is paused. Its answer tells them once more.
    """

    accepted: bool
    ended: bool = False
    held: bool = False


def select_call(answered: CallAnswered) -> list[Selection]:
    """The item with its slots, the run with its lane, and the steps that the answer tells of."""
    selections: list[Selection] = [
        Select("items", answered.item_id, ("release", "run")),
        Select("runs", answered.run_id, ("lane", "invoker")),
    ]
    if isinstance(answered.answer, Ops):
        for op in answered.answer.ops:
            if op.id:
                selections.append(Select("steps", (answered.run_id, op.id)))
            if op.op == "WaitForSignal":
                selections += [Select("names", signal_name(op)), select_kept(signal_of(op))]
        selections += select_notes_of_ops(answered.run_id, answered.answer.ops)
    else:
        step_id = answered.item_id.removeprefix(f"{answered.run_id}-").removesuffix("-plan")
        selections.append(Select("steps", (answered.run_id, step_id)))
    return selections


def on_call_answered(registry: Registry, view: View, answered: CallAnswered, now_ms: int) -> list[Command | Effect]:
    """Record what the call led to: finished steps, retries, new items, or the run's end."""
    item = view.held_item(answered.item_id, answered.fence)
    if item is None:
        # The lease is over: the item went to another call, or its run's end took the slot back. Whoever holds it reports.
        return [Reply(None)]
    run = view.run(item.run_id)
    decision = Decision(registry, view, now_ms)
    if run is None or run.ended_ms is not None:
        # The run ended while the call was out; the slot was kept until now.
        decision.lanes.give_back(item)
        return [Delete("items", item.id), *settle(decision), Reply(None)]
    if isinstance(answered.answer, Lost) and not is_worn_out(registry, item):
        return [*lose(decision.lanes, item, answered.answer.reason, answered.worker, now_ms), *settle(decision), Reply(None)]
    advance = advance_of(decision, run)
    answer = answered.answer
    match answer:
        case Ops():
            on_ops(advance, item, answer, answered.worker)
            advance.write(*notes_of_ops(view, run.id, answer.ops, now_ms))
        case Returned():
            advance.consume(item)
            advance.ends(RunStatus.COMPLETED, answer.data)
        case Failed():
            on_failed(advance, item, answer, answered.worker)
        case Lost():
            fail_worn_out(advance, item, answer.reason, answered.worker)
        case _:
            assert_never(answer)
    return [*settle(decision), Reply(None)]


def on_ops(advance: Advance, item: Item, answer: Ops, worker: str) -> None:
    """A generator answer: each op in turn, then the job's own end or retry (§4.5, §4.6)."""
    advance.settle_version(answer.request_version)
    told = [op for op in answer.ops if op.op != "None"]
    if (over := advance.over_limit(sum(op.op not in LAZY for op in told))) is not None:
        advance.consume(item)
        advance.ends(RunStatus.FAILED, over, "limit")
        return
    unknown = next((op for op in told if op.op not in ADVANCES), None)
    if unknown is not None:
        on_failed(advance, item, no_such_op(unknown), worker)
        return
    ops = lazy_first(advance, told, item, worker)
    if told and not ops and advance.outstanding == 1:
        # What was deferred is kept, and the call has nothing else to tell: only another one can.
        advance.discover(f"{told[-1].id}-deferred")
    open_group(advance, ops)
    retry_of: Op | None = None
    series = len(ops) > 1 and all(op.op in DONE for op in ops)
    if series:
        on_series(advance, ops, item)
    for op in () if series else ops:
        if is_own_error(op):
            on_failed(advance, item, own_failure(op, answer), worker)
            return
        if op.op == "StepError" and may_retry(advance, item, answer.no_retry is not True):
            advance.tried(op, item)
            advance.attempted(item, op.id, "failed", op.error or b"{}", worker)
            retry_of = op
        elif (refused := ADVANCES[op.op](advance, op, item, worker)) is not None:
            on_failed(advance, item, refused, worker)
            return
    if retry_of is not None:
        advance.retry(item, retry_due_ms(advance, item, answer.retry_after_ms))
        return
    if not advance.ended and not told_again(advance, item, ops) and advance.outstanding == 1:
        stuck = error_json("NothingToDo", "The app answered that there is nothing to do, and nothing else of the run is under way.")
        on_failed(advance, item, Failed(error=stuck, retriable=True), worker)
        return
    advance.consume(item)


def lazy_first(advance: Advance, ops: list[Op], item: Item, worker: str) -> list[Op]:
    """Perform the ops that ride along and count as no step; gives the others."""
    for op in ops:
        if op.op in LAZY:
            ADVANCES[op.op](advance, op, item, worker)
    return [op for op in ops if op.op not in LAZY]


def open_group(advance: Advance, ops: list[Op]) -> None:
    """More than one op that is no lazy one is a parallel group (§4.6); steps that are all done already are none, and need no plan."""
    if len(ops) < 2 or all(op.op in DONE for op in ops) or any(op.op in ENDS for op in ops):
        return
    planned = any(op.op == "StepPlanned" for op in ops)
    advance.open_group([op.id for op in ops], joined=planned and advance.version >= 2)


def on_series(advance: Advance, ops: list[Op], item: Item) -> None:
    """Steps that were done one after the other: one call follows them all."""
    new = [op for op in ops if advance.finish(op, memo_of(op), item)]
    if new:
        advance.rediscover(new[-1])


def is_own_error(op: Op) -> bool:
    """Whether the error is the function's own: an app that has more to tell sends it as an op without a name, in place of a status."""
    return op.op in ("StepError", "StepFailed") and op.id == COMPLETE_ID and not (op.name or op.display_name or op.user_id)


def own_failure(op: Op, answer: Ops) -> Failed:
    """The function's own error, as a failed call."""
    retriable = op.op == "StepError" and answer.no_retry is not True
    return Failed(error=op.error or b"{}", retriable=retriable, retry_after_ms=answer.retry_after_ms)


def told_again(advance: Advance, item: Item, ops: list[Op]) -> bool:
    """Whether the answer tells only of steps that are saved: then the run is called again, as after steps that are new (§4.6).

    An app that did not hear its checkpoint's reply tells the steps once more in its answer (§5.12). One that was called for this very
    reason and answers so again does not get on. Where a group is waited for, its last step calls the run.
    """
    told = ops if advance.outstanding == 1 else [op for op in ops if op.op in RESULTS]
    saved = next((op for op in reversed(told) if (step := advance.knows_step(op.id)) is not None and step.ended_ms is not None), None)
    if saved is None or advance.has_more or advance.is_waited_for(saved) or item.id == (again := f"{item.run_id}-{saved.id}-saved"):
        return False
    if advance.view.item(again) is None and advance.view.timer(f"item/{again}") is None:
        advance.discover(f"{saved.id}-saved")
    return True


def on_failed(advance: Advance, item: Item, failed: Failed, worker: str) -> None:
    """The whole call failed: the same job again, or, when it has used its attempts, the run's end (§4.7)."""
    advance.attempted(item, step_of(item), "failed", failed.error, worker)
    if may_retry(advance, item, failed.retriable):
        advance.retry(item, retry_due_ms(advance, item, failed.retry_after_ms))
        return
    advance.consume(item)
    advance.ends(RunStatus.FAILED, failed.error)


def lose(lanes: Lanes, item: Item, reason: str, worker: str, now_ms: int, *, counts: bool = True) -> list[Command | Effect]:
    """A leased item of a live run becomes ready at once under a new fence, and uses no attempt; the trace shows the loss.

    It `counts` towards the losses that fail the call where the call may be what killed its worker.
    """
    lanes.give_back(item)
    lanes.ready(item)
    return [
        Put(attempt_row(item, step_of(item), "lost", error_json("Lost", reason), worker, now_ms)),
        ReturnItem(item.id, None, item.fence, item.losses + counts),
    ]


def is_worn_out(registry: Registry, item: Item) -> bool:
    """Whether losing the call once more is once too often."""
    return item.losses + 1 >= registry.settings.losses_max


def fail_worn_out(advance: Advance, item: Item, reason: str, worker: str) -> None:
    """The call was lost too often: it fails for good, for it may be what kills its workers."""
    died = error_json("WorkerDied", f"The call was lost {item.losses + 1} times in a row. The last time: {reason}.")
    on_failed(advance, item, Failed(error=died, retriable=False), worker)


def step_of(item: Item) -> str:
    """The step that the item calls; "" where it calls the function."""
    return "" if item.step_id == "step" else item.step_id


def may_retry(advance: Advance, item: Item, retriable: bool) -> bool:
    """Whether the job has an attempt left, and the error lets it be used."""
    function = advance.registry.functions[item.function_id]
    return retriable and item.attempt + 1 < function.max_attempts


def retry_due_ms(advance: Advance, item: Item, retry_after_ms: int | None) -> int:
    """When the next attempt is due: as asked, or by the backoff table (§4.8)."""
    if retry_after_ms is not None:
        return advance.now_ms + retry_after_ms
    return advance.now_ms + backoff_ms(advance.registry.settings, item.id, item.attempt)


def select_checkpoint(checkpointed: StepsCheckpointed) -> list[Selection]:
    """The item, its run, and the steps told of."""
    checkpoint = checkpointed.checkpoint
    return [
        Select("items", checkpoint.item_id),
        Select("runs", checkpoint.run_id, ("invoker",)),
        *(Select("steps", (checkpoint.run_id, op.id)) for op in checkpoint.ops),
        *select_notes_of_ops(checkpoint.run_id, checkpoint.ops),
    ]


def is_superseded(item: Item, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint is of an earlier lease of the item, or of none."""
    return item.holder is None or item.fence != checkpoint.fence or item.run_id != checkpoint.run_id


def on_steps_checkpointed(registry: Registry, view: View, checkpointed: StepsCheckpointed, now_ms: int) -> list[Command | Effect]:
    """Save the steps of a call that goes on. No discovery follows; the item gets its full attempts again (§5.12).

    The lease is judged first: a call that was superseded has to stop, whatever became of its run.
    """
    checkpoint = checkpointed.checkpoint
    item, run = view.item(checkpoint.item_id), view.run(checkpoint.run_id)
    if item is not None and is_superseded(item, checkpoint):
        return [Reply(CheckpointReply(accepted=False))]
    if run is None or run.ended_ms is not None:
        return [Reply(CheckpointReply(accepted=False, ended=True))]
    if item is None:
        return [Reply(CheckpointReply(accepted=False))]
    wrong = next((op for op in checkpoint.ops if op.op not in CHECKPOINT_OPS), None)
    if wrong is not None:
        return [Refuse(ProtocolError(f"a checkpoint cannot tell of {wrong.op!r}; it takes {', '.join(sorted(CHECKPOINT_OPS))}", 400))]
    decision = Decision(registry, view, now_ms)
    advance = advance_of(decision, run)
    for op in lazy_first(advance, list(checkpoint.ops), item, ""):
        if op.op != "StepPlanned":
            advance.finish(op, memo_of(op), item)
    advance.write(*notes_of_ops(view, run.id, checkpoint.ops, now_ms))
    advance.reset(item)
    over = advance.over_limit()
    if over is not None:
        return [*settle(decision), Refuse(ProtocolError(msgspec.json.decode(over)["message"], 413))]
    return [*settle(decision), Reply(CheckpointReply(accepted=True, held=is_held(run)))]
