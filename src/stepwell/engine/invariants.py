"""What must hold of the whole state, and of every move from one state to the next: named functions, a sentence each.

Each gives a list of sentences about what does not hold; an empty list is right. They go over everything, and are for tests and doctors.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterator

from stepwell.engine.defers import DEFERS_MAX
from stepwell.engine.ending import LIFECYCLE_NAMES
from stepwell.engine.flow.keys import DRAIN, HELD, THROTTLE, held_lane, of_calls, of_runs
from stepwell.engine.flow.scheduling import batch_run_id
from stepwell.engine.flow.singleton import SINGLETON
from stepwell.engine.mail import NAMESPACE
from stepwell.engine.model import DeferStatus, LaneState, RunStatus, StepStatus, TimerKind
from stepwell.engine.model_primitives import places_of
from stepwell.engine.run import CANCEL_PREFIX, ENDED, MOVES
from stepwell.engine.tables import Tables
from stepwell.protocol.ids import derived_ulid
from stepwell.protocol.kv import stored_key
from stepwell.protocol.lifecycle import DEFERRED, FINISHED


def counters_count_leases(tables: Tables) -> Iterator[str]:
    """A key's counter is the number of leased items, of begun and live runs, or of a queue's deliveries, that hold it."""
    held = Count(key for item in tables.items if item.holder is not None for key in of_calls(item.keys))
    held += Count(key for run in tables.runs if run.started_ms is not None and run.ended_ms is None for key in of_runs(run.keys))
    held += Count(places_of(delivery.queue) for delivery in tables.deliveries)
    counted = {counter.id: counter.running for counter in tables.counters}
    for key in held.keys() | counted.keys():
        if held[key] != counted.get(key, 0):
            yield f"counter {key} says {counted.get(key, 0)}, {held[key]} leased items, runs or deliveries hold it"


def live_runs_go_on(tables: Tables) -> Iterator[str]:
    """A live run has an item or a timer, and counts them rightly."""
    calls, waits = Count[str](), Count[str]()
    for item in tables.items:
        calls[item.run_id] += 1
    for timer in tables.timers:
        if timer.run_id is not None and timer.kind is not TimerKind.LIMIT:
            (calls if timer.kind is TimerKind.ITEM else waits)[timer.run_id] += 1
    for run in tables.runs:
        if run.ended_ms is None:
            if (run.calls, run.waits) != (calls[run.id], waits[run.id]):
                yield f"run {run.id} counts {run.calls} calls, {run.waits} waits; there are {calls[run.id]} and {waits[run.id]}"
            if run.calls + run.waits == 0:
                yield f"run {run.id} is {run.status}, and nothing will move it"
            if (run.status is RunStatus.WAITING) != (run.calls == 0):
                yield f"run {run.id} is {run.status} with {run.calls} calls"


def ended_runs_are_over(tables: Tables) -> Iterator[str]:
    """An ended run has its time, no timer, wait or name, and no item but those that are out."""
    for run in tables.runs:
        if (run.ended_ms is not None) != (run.status in ENDED):
            yield f"run {run.id} is {run.status} with the end {run.ended_ms}"
        if run.ended_ms is not None:
            for timer in tables.timers.find("run", run.id):
                yield f"timer {timer.id} outlives its run"
            for wait in tables.waits.find("run", run.id):
                yield f"wait {wait.id} outlives its run {run.id}"
            for name in tables.names.find("run", run.id):
                yield f"name {name.id} outlives its run {run.id}"
            for item in tables.items.find("run", run.id):
                if item.holder is None:
                    yield f"item {item.id} waits, and its run has ended"


def steps_are_counted(tables: Tables) -> Iterator[str]:
    """A run counts its steps and their bytes rightly; a memo is there exactly when the step has ended, with places from 0 without a gap."""
    for run in tables.runs:
        steps = tables.steps.find("run", run.id)
        finished = [step for step in steps if step.memo is not None]
        if (run.steps, run.finished) != (len(steps), len(finished)):
            yield f"run {run.id} counts {run.steps} steps, {run.finished} finished; there are {len(steps)} and {len(finished)}"
        if run.state_bytes != (size := sum(len(step.memo or b"") for step in finished)):
            yield f"run {run.id} counts {run.state_bytes} bytes of state; there are {size}"
        if sorted(step.position for step in finished) != list(range(len(finished))):
            yield f"run {run.id}: the finished steps' places have a gap or a double"
        for step in steps:
            if (step.memo is not None) != (step.status in (StepStatus.COMPLETED, StepStatus.FAILED)):
                yield f"step {step.id} of run {run.id} is {step.status}, memo {step.memo!r}"
            if (step.memo is not None) != (step.ended_ms is not None):
                yield f"step {step.id} of run {run.id} ended at {step.ended_ms}, memo {step.memo!r}"


def groups_can_join(tables: Tables) -> Iterator[str]:
    """What an open group waits for is not finished; a live run's group without anything left to wait for is closed."""
    for run in tables.runs:
        if run.ended_ms is None:
            for step_id in run.pending:
                step = tables.steps.rows.get((run.id, step_id))
                if step is not None and step.memo is not None:
                    yield f"run {run.id} waits for step {step_id}, which is finished"
            if run.pending_key and not run.pending:
                yield f"run {run.id} has an open group with nothing left to wait for"


def lanes_lead_to_items(tables: Tables) -> Iterator[str]:
    """An item with keys that nobody holds is in a lane that is ready or shut, or its run is paused; a lane is shut by one of its keys."""
    for item in tables.items:
        if item.holder is None and item.keys and not item.lane_id.startswith(HELD):
            lane = tables.lanes.rows.get(item.lane_id)
            if lane is None or lane.state is LaneState.EMPTY:
                yield f"item {item.id} waits in a lane that is {'missing' if lane is None else 'empty'}"
    for lane in tables.lanes:
        key = lane.shut_by
        if (lane.state is LaneState.SHUT) != (key is not None) or (key is not None and key not in (*lane.keys, DRAIN + lane.function_id)):
            yield f"lane {lane.id} is {lane.state}, shut by {lane.shut_by}"


def shut_lanes_will_open(tables: Tables) -> Iterator[str]:
    """A key that shut a lane is held by somebody, or a ready lane, a cursor or its next admission will pass the opening on."""
    for lane in tables.lanes:
        key = lane.shut_by
        if key is None or key.startswith(DRAIN):
            continue
        if key.startswith(THROTTLE):
            if not any(f"{name}/{key}" in tables.timers.rows for name in ("admit", "open")):
                yield f"lane {lane.id} is shut by {key}, and nothing will open it"
        elif key not in tables.counters.rows:
            ready = any(other.state is LaneState.READY and key in other.keys for other in tables.lanes)
            if not ready and f"open/{key}" not in tables.timers.rows:
                yield f"lane {lane.id} is shut by {key}, which nobody holds"


def pauses_end(tables: Tables) -> Iterator[str]:
    """An item that is kept out of the way is not out, and its run is paused, or a cursor brings it back; an ended run is not paused."""
    for item in tables.items:
        if item.lane_id.startswith(HELD):
            run = tables.runs.rows.get(item.run_id)
            if item.holder is not None or run is None or (run.held is None and f"resume/{run.id}" not in tables.timers.rows):
                yield f"item {item.id} is kept back (held by {item.holder}), and nothing will bring it back"
    for run in tables.runs:
        if run.ended_ms is not None and run.held is not None:
            yield f"run {run.id} is {run.status}, and paused by {run.held}"


def leases_have_holders(tables: Tables) -> Iterator[str]:
    """A leased item has a fence, and its holder is a known epoch or one whose cursor brings the item back."""
    for item in tables.items:
        if item.fence < 0 or (item.holder is not None and (item.fence < 1 or item.leased_ms is None)):
            yield f"item {item.id} has the fence {item.fence}, holder {item.holder}, leased at {item.leased_ms}"
        if item.holder is not None and item.holder not in tables.holders.rows and f"return/{item.holder}" not in tables.timers.rows:
            yield f"item {item.id} is leased to {item.holder}, which is not there"


def items_belong_to_runs(tables: Tables) -> Iterator[str]:
    """An item is in the lane of its run, or in that of its pause, and is not carried by a timer at the same time."""
    for item in tables.items:
        run = tables.runs.rows.get(item.run_id)
        lane = item.lane_id if run is None or item.lane_id != held_lane(run.id) else run.lane_id
        if run is None or (run.function_id, run.lane_id, run.keys) != (item.function_id, lane, item.keys):
            yield f"item {item.id} has another lane than its run"
        if f"item/{item.id}" in tables.timers.rows:
            yield f"item {item.id} is there, and a timer will put it in again"


def timers_have_subjects(tables: Tables) -> Iterator[str]:
    """A timer's event, item or step is there; a step that sleeps or waits has its timer."""
    for timer in tables.timers:
        match timer.kind:
            case TimerKind.ROUTE if timer.ref not in tables.events.rows:
                yield f"cursor {timer.id} has lost its event"
            case TimerKind.ITEM if timer.item is None or timer.item.holder is not None or timer.item.run_id != timer.run_id:
                yield f"timer {timer.id} carries {timer.item}"
            case TimerKind.HOLD if timer.ref not in tables.holds.rows:
                yield f"timer {timer.id} has lost what it is for"
            case TimerKind.MEET if timer.ref not in tables.events.rows:
                yield f"cursor {timer.id} has lost its event"
            case TimerKind.SLEEP | TimerKind.TIMEOUT:
                step = tables.steps.rows.get((timer.run_id or "", timer.ref))
                if step is None or step.status is not StepStatus.WAITING:
                    yield f"timer {timer.id} is for the step {step}"
            case _:
                pass
    live = {run.id for run in tables.runs if run.ended_ms is None}
    for step in tables.steps:
        waits = step.status is StepStatus.WAITING and step.run_id in live
        timer_id = f"{'sleep' if step.op == 'Sleep' else 'wait'}/{step.run_id}/{step.id}"
        if waits and timer_id not in tables.timers.rows:
            yield f"step {step.id} of run {step.run_id} sleeps or waits, and nothing will wake it"


def waits_have_steps(tables: Tables) -> Iterator[str]:
    """A wait or name is for a waiting step or a rule of its run; a step that waits for an event has its wait; serials are counted."""
    waiting = {(step.run_id, step.id): step.op for step in tables.steps if step.status is StepStatus.WAITING}
    for wait in tables.waits:
        run = tables.runs.rows.get(wait.run_id)
        if wait.id.startswith(CANCEL_PREFIX):
            if run is None or not run.guarded:
                yield f"rule {wait.id} is for run {wait.run_id}, which has none"
        elif waiting.get((wait.run_id, wait.id)) != "WaitForEvent":
            yield f"wait {wait.id} of run {wait.run_id} is for a step that does not wait"
        topic = tables.topics.rows.get(wait.name)
        if topic is None or topic.serial < wait.serial:
            yield f"wait {wait.id} of run {wait.run_id} is beyond what its topic {wait.name} knows"
    for name in tables.names:
        if name.id.startswith(SINGLETON):
            run = tables.runs.rows.get(name.run_id)
            if run is None or run.ended_ms is not None or not run.guarded:
                yield f"name {name.id} is for run {name.run_id}, which does not use it"
            continue
        if waiting.get((name.run_id, name.ref)) != "WaitForSignal":
            yield f"name {name.id} is for step {name.ref} of run {name.run_id}, which does not wait"
    live = {run.id for run in tables.runs if run.ended_ms is None}
    for key, op in waiting.items():
        if op == "WaitForEvent" and key[0] in live and key not in tables.waits.rows:
            yield f"step {key} waits for an event, and none will find it"
    serials = Count((wait.name, wait.serial) for wait in tables.waits)
    for (topic_name, serial), count in serials.items():
        if count > 1:
            yield f"{count} waits for {topic_name} have the serial {serial}"


def invokes_have_runs(tables: Tables) -> Iterator[str]:
    """A step that waits for a run that it invoked: that run is there, is live, and knows the step."""
    for step in tables.steps:
        if step.op != "InvokeFunction" or step.status is not StepStatus.WAITING:
            continue
        parent = tables.runs.rows.get(step.run_id)
        child = tables.runs.rows.get(step.ref or "")
        if parent is None or parent.ended_ms is not None:
            continue
        if child is None or child.origin != f"{step.run_id}.{step.id}":
            yield f"step {step.id} of run {step.run_id} waits for run {step.ref}, which does not know it"
        elif child.ended_ms is not None:
            yield f"step {step.id} of run {step.run_id} waits for run {child.id}, which has ended"


def ticks_fire_once(tables: Tables) -> Iterator[str]:
    """A function has one run for a tick of a cron line, and a line's timer is for a later tick than its last."""
    seen = Count((run.function_id, run.origin, run.id) for run in tables.runs if run.cause == "cron")
    for key, count in seen.items():
        if count > 1:
            yield f"the tick {key} was fired {count} times"
    for timer in tables.timers:
        if timer.kind is TimerKind.CRON:
            tick, _, cron = timer.after.partition(" ")
            schedule = tables.schedules.rows.get((timer.ref, cron))
            if schedule is not None and schedule.fired_ms >= int(tick):
                yield f"timer {timer.id} is for a tick that was fired"


def dedups_lead_to_runs(tables: Tables) -> Iterator[str]:
    """What an event key is remembered for is a run of that function, or will be one."""
    to_be = {batch_run_id(hold) for hold in tables.holds}
    for dedup in tables.dedups:
        run = tables.runs.rows.get(dedup.run_id)
        if dedup.run_id in to_be:
            continue
        if run is None or run.function_id != dedup.function_id:
            yield f"key {dedup.event_key} of {dedup.function_id} is remembered for {dedup.run_id}, which is not there"


def ends_are_told_once(tables: Tables) -> Iterator[str]:
    """Each ended run that an event started has one lifecycle event of each of its kinds; a live one has none."""
    told = Count((event.run_id, event.name) for event in tables.events if event.run_id is not None)
    for run in tables.runs:
        names = [FINISHED, LIFECYCLE_NAMES.get(run.status, FINISHED)]
        tells = run.ended_ms is not None and run.cause != "lifecycle" and run.status is not RunStatus.SKIPPED
        wanted = set(names) if tells else set()
        for name in (FINISHED, *LIFECYCLE_NAMES.values()):
            if told[run.id, name] != (name in wanted):
                yield f"run {run.id} ({run.status}) has {told[run.id, name]} events {name}"


def traces_are_counted(tables: Tables) -> Iterator[str]:
    """What is noted about a run, and its spans, belong to a run that is there, and are counted rightly."""
    sizes, spans = Count[str](), Count[str]()
    for row in tables.metadata:
        sizes[row.run_id] += len(row.kind.encode()) + len(row.values)
    for span in tables.spans:
        spans[span.run_id] += 1
    for run_id in {*sizes, *spans}:
        if run_id not in tables.runs.rows:
            yield f"something is noted about run {run_id}, which is not there"
        totals = tables.trace_totals.rows.get(run_id)
        if totals is None or (totals.metadata_bytes, totals.spans) != (sizes[run_id], spans[run_id]):
            yield f"run {run_id} has {sizes[run_id]} bytes of notes, {spans[run_id]} spans; counted are {totals}"
    for edited in tables.inputs:
        run = tables.runs.rows.get(edited.run_id)
        if run is None or run.cause != "rerun":
            yield f"step {edited.step_id} is given an input in run {edited.run_id}, which is no rerun"


def defers_end_with_runs(tables: Tables) -> Iterator[str]:
    """A run counts its defers; an ended one has asked for each that was to run, by one event; a live one for none."""
    asked = Count(event.key for event in tables.events if event.name == DEFERRED)
    for run in tables.runs:
        rows = tables.defers_of(run.id)
        if run.defers != len(rows):
            yield f"run {run.id} counts {run.defers} defers; there are {len(rows)}"
        if sum(row.input is not None for row in rows) > DEFERS_MAX:
            yield f"run {run.id} defers {len(rows)}"
        for row in rows:
            left = DeferStatus.AFTER_RUN if run.ended_ms is None else DeferStatus.SCHEDULED
            if row.status in (DeferStatus.AFTER_RUN, DeferStatus.SCHEDULED) and row.status is not left:
                yield f"run {run.id} ({run.status}) has the defer {row.id} {row.status}"
            if (count := asked[derived_ulid(run.created_ms, run.id, DEFERRED, row.id)]) != (row.status is DeferStatus.SCHEDULED):
                yield f"the defer {row.id} of run {run.id} is {row.status}, and asked for {count} times"


def one_run_per_event(tables: Tables) -> Iterator[str]:
    """A function has one run for an event, reruns aside."""
    seen = Count((run.function_id, run.event_ids) for run in tables.runs if run.cause != "rerun")
    for (function_id, event_ids), count in seen.items():
        if count > 1:
            yield f"{function_id} has {count} runs for {event_ids}"


def holds_have_timers(tables: Tables) -> Iterator[str]:
    """An open batch or debounce has its events and a timer, due when it is."""
    for hold in tables.holds:
        timer = tables.timers.rows.get(f"hold/{hold.id}")
        if timer is None or timer.due_ms != hold.due_ms:
            yield f"{hold.id} is due at {hold.due_ms}, and has the timer {timer}"
        if not hold.events or any(event_id not in tables.events.rows for event_id in hold.events):
            yield f"{hold.id} has lost events: {hold.events}"


def singletons_are_single(tables: Tables) -> Iterator[str]:
    """Live runs that go by a singleton's name have one, each its own."""
    names = Count(name.run_id for name in tables.names if name.id.startswith(SINGLETON))
    for run_id, count in names.items():
        if count > 1:
            yield f"run {run_id} has {count} singleton names"


def kept_signals_are_not_waited_for(tables: Tables) -> Iterator[str]:
    """A signal is kept only while no step waits for its name."""
    waited = {stored_key(name.id.removeprefix("signal/")): name.run_id for name in tables.names if name.id.startswith("signal/")}
    for entry in tables.kv.find("namespace", NAMESPACE):
        if entry.key in waited:
            yield f"signals {entry.key!r} are kept, and run {waited[entry.key]} waits for one"


def queues_count_messages(tables: Tables) -> Iterator[str]:
    """A queue counts its messages that are not out, and their bytes; a message's queue is there."""
    waiting, sizes = Count[str](), Count[str]()
    for message in tables.messages:
        if message.queue not in tables.queues.rows:
            yield f"message {message.id} is in the queue {message.queue}, which is not there"
        if message.delivery is None:
            waiting[message.queue] += 1
            sizes[message.queue] += len(message.body)
    for queue in tables.queues:
        if (queue.waiting, queue.waiting_bytes) != (waiting[queue.id], sizes[queue.id]):
            counted = f"{queue.waiting} messages, {queue.waiting_bytes} bytes"
            yield f"queue {queue.id} counts {counted}; there are {waiting[queue.id]} and {sizes[queue.id]}"


def deliveries_have_messages(tables: Tables) -> Iterator[str]:
    """A message that is out belongs to a delivery that names it, once; a delivery's messages are of its queue, out with it, and counted."""
    named = Count((delivery.id, message_id) for delivery in tables.deliveries for message_id in delivery.messages)
    for message in tables.messages:
        if message.delivery is not None and not named[message.delivery, message.id]:
            yield f"message {message.id} is out with {message.delivery}, which does not name it"
        if message.delivery is not None and (message.pulled or message.attempts < 1):
            yield f"message {message.id} is out, pulled {message.pulled}, after {message.attempts} attempts"
    for (delivery_id, message_id), count in named.items():
        found = tables.messages.rows.get(message_id)
        delivery = tables.deliveries.rows[delivery_id]
        if found is None or (found.delivery, found.queue) != (delivery_id, delivery.queue) or count > 1:
            yield f"delivery {delivery_id} of {delivery.queue} names {message_id} {count} times; that is {found}"
    for delivery in tables.deliveries:
        if not delivery.messages:
            yield f"delivery {delivery.id} is empty"
        if delivery.holder not in tables.holders.rows and f"redeliver/{delivery.holder}" not in tables.timers.rows:
            yield f"delivery {delivery.id} is leased to {delivery.holder}, which is not there"


def waiting_messages_expire(tables: Tables) -> Iterator[str]:
    """A queue in which something waits has the timer that takes away what is old."""
    for queue in tables.queues:
        if queue.waiting and f"expiry/{queue.id}" not in tables.timers.rows:
            yield f"{queue.waiting} messages wait in {queue.id}, and nothing will take the old ones away"


STATE: tuple[Callable[[Tables], Iterator[str]], ...] = (
    counters_count_leases,
    live_runs_go_on,
    ended_runs_are_over,
    steps_are_counted,
    groups_can_join,
    lanes_lead_to_items,
    shut_lanes_will_open,
    pauses_end,
    leases_have_holders,
    items_belong_to_runs,
    timers_have_subjects,
    dedups_lead_to_runs,
    waits_have_steps,
    invokes_have_runs,
    ticks_fire_once,
    ends_are_told_once,
    defers_end_with_runs,
    one_run_per_event,
    holds_have_timers,
    singletons_are_single,
    kept_signals_are_not_waited_for,
    traces_are_counted,
    queues_count_messages,
    deliveries_have_messages,
    waiting_messages_expire,
)


def violations(tables: Tables) -> list[str]:
    """Everything that does not hold of the state."""
    return [sentence for check in STATE for sentence in check(tables)]


class Moves:
    """Judges each state against the one before: an ended run never moves, a memo never changes, a fence never goes back."""

    def __init__(self) -> None:
        self._runs: dict[str, RunStatus] = {}
        self._ended: dict[str, object] = {}
        self._memos: dict[object, bytes] = {}
        self._fences: dict[str, int] = {}
        self._defers: dict[object, DeferStatus] = {}
        self.seen: set[tuple[RunStatus, RunStatus]] = set()

    def judge(self, tables: Tables) -> list[str]:
        """What is wrong with the move to this state."""
        wrong = []
        for run in tables.runs:
            before = self._runs.get(run.id)
            if before is not None and before is not run.status:
                if run.status not in MOVES[before]:
                    wrong.append(f"run {run.id} went from {before} to {run.status}")
                self.seen.add((before, run.status))
            self._runs[run.id] = run.status
            if run.ended_ms is not None and self._ended.setdefault(run.id, run) != run:
                wrong.append(f"run {run.id} changed after its end")
        for step in tables.steps:
            if step.memo is not None and self._memos.setdefault((step.run_id, step.id), step.memo) != step.memo:
                wrong.append(f"the memo of step {step.id} of run {step.run_id} changed")
        for key in self._memos.keys() - tables.steps.rows.keys():
            wrong.append(f"the finished step {key} is gone")
        for one in tables.defers:
            before_it = self._defers.get((one.run_id, one.id), one.status)
            if before_it is not one.status and before_it is not DeferStatus.AFTER_RUN:
                wrong.append(f"the defer {one.id} of run {one.run_id} went from {before_it} to {one.status}")
            self._defers[one.run_id, one.id] = one.status
        for item in tables.items:
            if item.fence < self._fences.get(item.id, 0):
                wrong.append(f"the fence of item {item.id} went back")
            self._fences[item.id] = item.fence
        return wrong
