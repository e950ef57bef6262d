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
from stepwell.engine.lanes import Lanes
from stepwell.engine.metadata import notes_of_ops, select_notes_of_ops
from stepwell.engine.model import Item, RunStatus
from stepwell.engine.registry import Registry
from stepwell.engine.resume import signal_name
from stepwell.engine.steps import ADVANCES, memo_of, no_such_op
from stepwell.engine.timing import backoff_ms
from stepwell.engine.view import Select, Selection, View
from stepwell.errors import ProtocolError
from stepwell.protocol.calls import Failed, Lost, Ops, Returned
from stepwell.protocol.ops import Op

CHECKPOINT_OPS = frozenset({"StepRun", "Step", "StepPlanned"})
"""What a checkpoint may tell (§5.12)."""


class CheckpointReply(msgspec.Struct, frozen=True):
    """The reply to `StepsCheckpointed`: taken; or not, since a later lease superseded the call, or else since its run has `ended`."""

    accepted: bool
    ended: bool = False


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
                selections.append(Select("names", signal_name(op)))
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
    ops = [op for op in answer.ops if op.op != "None"]
    if (over := advance.over_limit(len(ops))) is not None:
        advance.consume(item)
        advance.ends(RunStatus.FAILED, over, "limit")
        return
    unknown = next((op for op in ops if op.op not in ADVANCES), None)
    if unknown is not None:
        on_failed(advance, item, no_such_op(unknown), worker)
        return
    if len(ops) > 1 and not any(op.op == "RunComplete" for op in ops):
        planned = any(op.op == "StepPlanned" for op in ops)
        advance.open_group([op.id for op in ops], joined=planned and advance.version >= 2)
    retry_of: Op | None = None
    for op in ops:
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
    if not advance.ended and advance.outstanding == 1 and not told_again(advance, item, ops):
        stuck = error_json("NothingToDo", "The app answered that there is nothing to do, and nothing else of the run is under way.")
        on_failed(advance, item, Failed(error=stuck, retriable=True), worker)
        return
    advance.consume(item)


def told_again(advance: Advance, item: Item, ops: list[Op]) -> bool:
    """Whether the answer tells only of steps that are saved: then the run is called again, as after steps that are new.

    An app that did not hear its checkpoint's reply tells the steps once more in its answer (§5.12). One that was called for this very
    reason and answers so again does not get on.
    """
    saved = next((op for op in reversed(ops) if (step := advance.knows_step(op.id)) is not None and step.ended_ms is not None), None)
    if saved is None or item.id == f"{item.run_id}-{saved.id}-saved":
        return False
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


def on_steps_checkpointed(registry: Registry, view: View, checkpointed: StepsCheckpointed, now_ms: int) -> list[Command | Effect]:
    """Save the steps of a call that goes on. No discovery follows; the item gets its full attempts again (§5.12)."""
    checkpoint = checkpointed.checkpoint
    item = view.held_item(checkpoint.item_id, checkpoint.fence)
    run = view.run(checkpoint.run_id)
    if item is None or run is None or item.run_id != run.id:
        return [Reply(CheckpointReply(accepted=False, ended=run is None))]
    if run.ended_ms is not None:
        return [Reply(CheckpointReply(accepted=False, ended=True))]
    wrong = next((op for op in checkpoint.ops if op.op not in CHECKPOINT_OPS), None)
    if wrong is not None:
        return [Refuse(ProtocolError(f"a checkpoint cannot tell of {wrong.op!r}; it takes {', '.join(sorted(CHECKPOINT_OPS))}", 400))]
    decision = Decision(registry, view, now_ms)
    advance = advance_of(decision, run)
    for op in checkpoint.ops:
        if op.op != "StepPlanned":
            advance.finish(op, memo_of(op), item)
    advance.write(*notes_of_ops(view, run.id, checkpoint.ops, now_ms))
    advance.reset(item)
    over = advance.over_limit()
    if over is not None:
        return [*settle(decision), Refuse(ProtocolError(msgspec.json.decode(over)["message"], 413))]
    return [*settle(decision), Reply(CheckpointReply(accepted=True))]
