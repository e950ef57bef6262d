"""The one door: an input is handed to the machine that owns it, first to say what it needs to see, then to be decided.

`select` and `transition` are pure: the same registry, view, input and time always give the same commands.
"""

from __future__ import annotations

from typing import assert_never

from stepwell.engine import apps, calls, cancelling, control, endpoints, holders, lanes, metadata, pausing, rerun, routing, spans, timers
from stepwell.engine.commands import Command, Effect, Refuse
from stepwell.engine.flow import changes
from stepwell.engine.inputs import (
    AnyInput,
    AppRemoved,
    AppSynced,
    CallAnswered,
    CallsReturned,
    CancellationEnded,
    Claim,
    EndpointFound,
    EventsReceived,
    FunctionHeld,
    FunctionInvoked,
    FunctionOverridden,
    HolderRenewed,
    InputSetAside,
    MetadataTold,
    NodeStarted,
    RunCancelled,
    RunHeld,
    RunRerun,
    RunsCancelled,
    SignalSent,
    SpansTold,
    StepsCheckpointed,
    SyncRunBegun,
    SyncStepsTold,
    TimerDue,
)
from stepwell.engine.inputs_actors import ActorActivated, ActorsReleased, ActorWrote, AlarmAnswered
from stepwell.engine.inputs_primitives import (
    BatchAnswered,
    DeliveriesReturned,
    KvWritten,
    LeasesSettled,
    MessageEdited,
    MessagesDeleted,
    MessagesMoved,
    MessagesPulled,
    MessagesSent,
    QueueClaimed,
    QueuePurged,
    QueueSet,
)
from stepwell.engine.model import OF_ACTORS, OF_PRIMITIVES
from stepwell.engine.registry import Registry
from stepwell.engine.view import Select, Selection, View
from stepwell.primitives import actor, kv, queue, queue_care, queue_claims, queue_pulls
from stepwell.primitives.timers import on_primitive_due
from stepwell.primitives.timers_actors import on_actor_timer_due
from stepwell.protocol.lifecycle import CANCELLED, FAILED, FINISHED


def select(registry: Registry, input: AnyInput, now_ms: int) -> list[Selection]:
    """The rows and scans that deciding the input takes."""
    match input:
        case StepsCheckpointed():
            return calls.select_checkpoint(input)
        case CallAnswered():
            return calls.select_call(input)
        case EventsReceived():
            return routing.select_events(registry, input, now_ms)
        case Claim():
            return lanes.select_claim(registry, input)
        case TimerDue():
            return timers.select_timer(input)
        case SyncStepsTold():
            return endpoints.select_report(input.run_id, input.ops)
        case SyncRunBegun():
            return endpoints.select_begun(input)
        case EndpointFound():
            return endpoints.select_endpoint(input)
        case AppSynced():
            return [*apps.select_sync(registry, input), *queue.select_synced(input)]
        case AppRemoved():
            return apps.select_removal(registry, input)
        case NodeStarted():
            of_primitives = [*queue.select_node_started(input), *actor.select_refire(input.others)]
            return [*holders.select_node_started(input), *of_primitives]
        case HolderRenewed():
            return [Select("holders", input.holder)]
        case CallsReturned():
            return holders.select_calls_returned(input)
        case RunCancelled():
            return control.select_cancel(input)
        case RunHeld():
            return pausing.select_held(input)
        case RunRerun():
            return rerun.select_rerun(input)
        case MetadataTold():
            return metadata.select_told(input)
        case SpansTold():
            return spans.select_spans(input)
        case FunctionInvoked():
            return control.select_invoked(registry, input)
        case SignalSent():
            return control.select_signal(input)
        case RunsCancelled():
            return [Select("cancellations", input.cancellation.id)]
        case CancellationEnded():
            return cancelling.select_cancellation_ended(input)
        case FunctionHeld() | FunctionOverridden():
            return changes.select_change(input)
        case InputSetAside():
            return control.select_set_aside(input)
        case MessagesSent():
            return queue.select_sent(input)
        case QueueClaimed():
            return queue_claims.select_queue_claimed(registry, input)
        case BatchAnswered():
            return queue.select_answered(input)
        case DeliveriesReturned():
            return queue.select_returned(input)
        case MessagesPulled():
            return queue_pulls.select_pulled(input)
        case LeasesSettled():
            return queue_pulls.select_leases(input)
        case QueueSet():
            return queue.select_queue(input.queue)
        case QueuePurged():
            return queue_care.select_purged(input)
        case MessagesMoved() | MessagesDeleted():
            return queue_care.select_messages(input.queue, input.ids)
        case MessageEdited():
            return queue_care.select_messages(input.queue, (input.id, input.new_id))
        case KvWritten():
            return kv.select_written(input)
        case ActorActivated():
            return actor.select_activated(input)
        case ActorWrote():
            return actor.select_wrote(input)
        case AlarmAnswered():
            return actor.select_alarm_answered(input)
        case ActorsReleased():
            return actor.select_released(input)
        case _:
            assert_never(input)


def select_more(view: View, input: AnyInput) -> list[Selection]:
    """What the rows that are here now lead to, where more than a relation tells: the waits that events may find."""
    if type(input) is EventsReceived:
        return routing.select_meetings(view, input)
    return actor.select_wrote_entries(view, input) if type(input) is ActorWrote else []


SHARED: tuple[Selection, ...] = tuple(Select("topics", name) for name in (FINISHED, FAILED, CANCELLED))
"""What the decisions of most groups look at: whether anything waits for the ends of runs."""


def transition(registry: Registry, view: View, input: AnyInput, now_ms: int) -> list[Command | Effect]:
    """What the input leads to: writes, and effects for after the commit. Nothing is changed here."""
    match input:
        case StepsCheckpointed():
            return calls.on_steps_checkpointed(registry, view, input, now_ms)
        case CallAnswered():
            return calls.on_call_answered(registry, view, input, now_ms)
        case EventsReceived():
            return routing.on_events(registry, view, input, now_ms)
        case Claim():
            return lanes.on_claim(registry, view, input, now_ms)
        case TimerDue():
            timer = view.timer(input.timer_id)
            if timer is not None and timer.kind in OF_PRIMITIVES:
                return on_primitive_due(registry, view, timer, now_ms)
            if timer is not None and timer.kind in OF_ACTORS:
                return on_actor_timer_due(view, timer, input.holder, now_ms)
            return timers.on_timer_due(registry, view, input, now_ms)
        case SyncStepsTold():
            return endpoints.on_sync_steps(registry, view, input, now_ms)
        case SyncRunBegun():
            return endpoints.on_sync_run_begun(registry, view, input, now_ms)
        case EndpointFound():
            return endpoints.on_endpoint_found(registry, view, input, now_ms)
        case AppSynced():
            commands = apps.on_app_synced(registry, view, input, now_ms)
            return commands if any(isinstance(one, Refuse) for one in commands) else [*commands, *queue.on_queues_told(view, input, now_ms)]
        case AppRemoved():
            return apps.on_app_removed(registry, view, input, now_ms)
        case NodeStarted():
            of_primitives = [*queue.on_node_started(view, input, now_ms), *actor.refire_later(view, input.others, now_ms)]
            return [*holders.on_node_started(registry, view, input, now_ms), *of_primitives]
        case HolderRenewed():
            return holders.on_holder_renewed(view, input, now_ms)
        case CallsReturned():
            return holders.on_calls_returned(registry, view, input, now_ms)
        case RunCancelled():
            return control.on_run_cancelled(registry, view, input, now_ms)
        case RunHeld():
            return pausing.on_run_held(registry, view, input, now_ms)
        case RunRerun():
            return rerun.on_run_rerun(registry, view, input, now_ms)
        case MetadataTold():
            return metadata.on_metadata_told(view, input, now_ms)
        case SpansTold():
            return spans.on_spans_told(view, input)
        case FunctionInvoked():
            return control.on_function_invoked(registry, view, input, now_ms)
        case SignalSent():
            return control.on_signal_sent(registry, view, input, now_ms)
        case RunsCancelled():
            return cancelling.on_runs_cancelled(registry, view, input, now_ms)
        case CancellationEnded():
            return cancelling.on_cancellation_ended(view, input)
        case FunctionHeld():
            return changes.on_function_held(view, input, now_ms)
        case FunctionOverridden():
            return changes.on_function_overridden(registry, view, input, now_ms)
        case InputSetAside():
            return control.on_input_set_aside(registry, view, input, now_ms)
        case MessagesSent():
            return queue.on_messages_sent(view, input, now_ms)
        case QueueClaimed():
            return queue_claims.on_queue_claimed(registry, view, input, now_ms)
        case BatchAnswered():
            return queue.on_batch_answered(registry, view, input, now_ms)
        case DeliveriesReturned():
            return queue.on_deliveries_returned(registry, view, input, now_ms)
        case MessagesPulled():
            return queue_pulls.on_messages_pulled(registry, view, input, now_ms)
        case LeasesSettled():
            return queue_pulls.on_leases_settled(view, input, now_ms)
        case QueueSet():
            return queue_care.on_queue_set(view, input, now_ms)
        case QueuePurged():
            return queue_care.on_queue_purged(input, now_ms)
        case MessagesMoved():
            return queue_care.on_messages_moved(view, input, now_ms)
        case MessagesDeleted():
            return queue_care.on_messages_deleted(view, input, now_ms)
        case MessageEdited():
            return queue_care.on_message_edited(view, input, now_ms)
        case KvWritten():
            return kv.on_kv_written(view, input)
        case ActorActivated():
            return actor.on_actor_activated(view, input, now_ms)
        case ActorWrote():
            return actor.on_actor_wrote(view, input, now_ms)
        case AlarmAnswered():
            return actor.on_alarm_answered(view, input, now_ms)
        case ActorsReleased():
            return actor.on_actors_released(view, input)
        case _:
            assert_never(input)
