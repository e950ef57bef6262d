"""Why a run is waiting: the gate that keeps it back, judged by the rules that claims judge by.

It reads rows and changes nothing. The answer is of the moment: the next commit may have moved the run on.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stepwell.engine.flow.keys import RUN, THROTTLE, gates_starts_only, gating
from stepwell.engine.lanes import room_of
from stepwell.engine.model import Item, Run, RunStatus, Step, Timer, TimerKind
from stepwell.engine.registry import Function
from stepwell.engine.view import View
from stepwell.protocol.durations import format_date


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """What a run waits for.

    `gate`: `ended`, `running`, `paused` (the run itself, or its function), `draining`, `concurrency`, `run concurrency`, `throttle`, `turn`
    (nothing but others before it), `backoff`, `delay`, `sleep`, `event`, `signal`, `invoke`. `position` counts the items before it in its
    lane; `earliest_ms` is exact for throttles and timers, and `None` where it depends on how long others take. `holders` are runs that
    hold the key.
    """

    run_id: str
    gate: str
    sentence: str
    key: str | None = None
    limit: int | None = None
    running: int | None = None
    holders: tuple[str, ...] = ()
    position: int | None = None
    earliest_ms: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that the answer is found in. `ahead`: items of the lane before the run's own; `held`: who holds a key."""

    run: Run
    function: Function
    items: Sequence[Item]
    timers: Sequence[Timer]
    steps: Sequence[Step]
    ahead: int
    held: dict[str, tuple[str, ...]]


def explain(facts: Facts, view: View, now_ms: int) -> Why:
    """The gate of a run: of its first item that waits, else of what it sleeps or waits for."""
    run = facts.run
    if run.ended_ms is not None:
        reason = f": {run.reason}" if run.reason else ""
        return Why(run_id=run.id, gate="ended", sentence=f"The run has ended ({run.status}{reason}).")
    waiting = sorted((item for item in facts.items if item.holder is None), key=lambda item: (item.starts, item.order_ms, item.id))
    out = [item for item in facts.items if item.holder is not None]
    if run.held is not None:
        return of_pause(run, run.held, out, of_timer(facts, now_ms) if not facts.items else None, now_ms)
    if waiting:
        return of_item(facts, view, waiting[0], now_ms)
    if out:
        since = format_date(out[0].leased_ms or now_ms)
        return Why(run_id=run.id, gate="running", sentence=f"It is not waiting: a call has been out since {since}.")
    return of_timer(facts, now_ms)


def of_pause(run: Run, by: str, out: Sequence[Item], waits: Why | None, now_ms: int) -> Why:
    """A paused run: what is out ends first; what it sleeps or waits for ends all the same, and calls it after its resumption."""
    sentence = f"The run is paused by {by}."
    if out:
        sentence += f" A call that has been out since {format_date(out[0].leased_ms or now_ms)} ends first."
    if waits is not None:
        sentence += f" {waits.sentence}"
    return Why(run_id=run.id, gate="paused", sentence=sentence)


def of_item(facts: Facts, view: View, item: Item, now_ms: int) -> Why:
    """Why an item that is ready has not been claimed."""
    run, function = facts.run, facts.function
    rules, row = function.rules, function.row
    if row.paused:
        return Why(run_id=run.id, gate="paused", position=facts.ahead, sentence=f"The function {function.id} is paused.")
    if row.draining and item.starts:
        sentence = f"The function {function.id} is draining: no run of it begins."
        return Why(run_id=run.id, gate="draining", position=facts.ahead, sentence=sentence)
    for key in gating(item.keys):
        if gates_starts_only(key) and not item.starts:
            continue
        throttle = rules.throttle_of(key)
        if throttle is not None:
            rate = view.get("rates", key)
            if throttle.room(rate, now_ms) <= facts.ahead:
                due_ms = throttle.next_ms(rate, now_ms, facts.ahead)
                sentence = f"{shown(key)} admits it at {format_date(due_ms)}; starts before it: {facts.ahead}."
                return Why(run_id=run.id, gate="throttle", key=key, position=facts.ahead, earliest_ms=due_ms, sentence=sentence)
            continue
        room = room_of(rules, view, key, 0, now_ms)
        if room is not None and room <= 0:
            whole = key.startswith(RUN)
            what = "runs" if whole else "calls"
            sentence = f"{shown(key)} is full: {view.running(key)} of {rules.limit_of(key)} {what}; before it: {facts.ahead}."
            return Why(
                run_id=run.id,
                gate="run concurrency" if whole else "concurrency",
                key=key,
                limit=rules.limit_of(key),
                running=view.running(key),
                holders=facts.held.get(key, ()),
                position=facts.ahead,
                sentence=sentence,
            )
    sentence = f"It is ready, with {facts.ahead} before it: it is called as soon as there is room for its app."
    return Why(run_id=run.id, gate="turn", position=facts.ahead, earliest_ms=now_ms, sentence=sentence)


GATES = {"WaitForEvent": "event", "WaitForSignal": "signal", "InvokeFunction": "invoke"}


def of_timer(facts: Facts, now_ms: int) -> Why:
    """What a run without a call sleeps or waits for: what ends first."""
    run = facts.run
    moving = [timer for timer in facts.timers if timer.kind in (TimerKind.ITEM, TimerKind.SLEEP, TimerKind.TIMEOUT)]
    timer = min(moving, key=lambda timer: timer.due_ms, default=None)
    if timer is None:
        return Why(run_id=run.id, gate="turn", sentence="It is on its way from one state to the next.")
    at = format_date(timer.due_ms)
    step = next((step for step in facts.steps if step.id == timer.ref), None)
    name = repr(step.name) if step is not None else "its step"
    if timer.kind is TimerKind.ITEM:
        failed = timer.item is not None and timer.item.attempt > 0
        if not failed and run.status is RunStatus.QUEUED:
            return Why(run_id=run.id, gate="delay", earliest_ms=timer.due_ms, sentence=f"Its event asks for a start at {at}.")
        attempt = timer.item.attempt + 1 if timer.item is not None else 1
        return Why(run_id=run.id, gate="backoff", earliest_ms=timer.due_ms, sentence=f"A call failed; try {attempt} is due at {at}.")
    if timer.kind is TimerKind.SLEEP:
        return Why(run_id=run.id, gate="sleep", earliest_ms=timer.due_ms, sentence=f"Step {name} sleeps until {at}.")
    gate = GATES.get(step.op if step is not None else "", "event")
    what = {"event": "an event", "signal": "a signal", "invoke": "another function's end"}[gate]
    other = (step.ref,) if step is not None and gate == "invoke" and step.ref is not None else ()
    sentence = f"Step {name} waits for {what}, until {at} at the latest."
    return Why(run_id=run.id, gate=gate, earliest_ms=None, holders=other, sentence=sentence)


def shown(key: str) -> str:
    """A key as people read it: its scope, its expression and the value."""
    parts = key.removeprefix(RUN).split("/", 3)
    if key.startswith(THROTTLE):
        scope, expression, value = "The throttle", parts[2], "/".join(parts[3:])
    else:
        scope, expression, value = f"The limit (scope {parts[0]})", parts[2], "/".join(parts[3:])
    expression = expression.replace("%2F", "/").replace("%25", "%")
    return f"{scope} of {expression} = {value}" if expression else scope


__all__ = ["Facts", "Why", "explain"]
