"""Cron lines: each tick starts one run of its function (inngest-protocol §6.5, §11.3).

A schedule has one timer, for its next tick, and a row that keeps the last tick fired: a clock set back, a restart or a second node
fires none twice. Ticks that were missed are not made up, unless the trigger asks for it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from stepwell.engine.commands import Command, Delete, Effect, Put, SetRow, TimerSet
from stepwell.engine.decision import Decision
from stepwell.engine.ending import settle
from stepwell.engine.events import event_body
from stepwell.engine.flow.gates import OPEN
from stepwell.engine.flow.scheduling import Wish, ask_at_once, unbatched
from stepwell.engine.model import EventRow, Json, Schedule, Timer, TimerKind
from stepwell.engine.registry import Function, Registry
from stepwell.engine.selection import cron_of
from stepwell.engine.view import Select, Selection, View
from stepwell.protocol.cloudflare_cron import CloudflareCron
from stepwell.protocol.config import FunctionConfig, Trigger
from stepwell.protocol.cron import parse_cron
from stepwell.protocol.durations import format_date
from stepwell.protocol.ids import derived_ulid
from stepwell.protocol.lifecycle import SCHEDULED, scheduled_data

MISSED_MS = 60_000
"""A tick that could not be fired within this of its time was missed."""


def timer_id(function_id: str, cron: str) -> str:
    """One timer a line of a function."""
    return f"cron/{function_id}/{hashlib.sha1(cron.encode()).hexdigest()[:16]}"


def jitter_ms(function_id: str, trigger: Trigger, scheduled_ms: int) -> int:
    """A tick's delay: always the same for the tick, less than the jitter asked for."""
    if not trigger.jitter_ms:
        return 0
    digest = hashlib.sha1(f"{function_id} {trigger.cron} {scheduled_ms}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % trigger.jitter_ms


def next_tick_ms(cron: str, after_ms: int) -> int | None:
    """The first tick later than a time, in milliseconds since the epoch; `None` for a line like `0 0 30 2 *`, which has none."""
    return _tick(cron, after_ms // 1000, reverse=False)


def last_tick_ms(cron: str, until_ms: int) -> int | None:
    """The latest tick that is not later than a time."""
    return _tick(cron, until_ms // 60_000 * 60 + 60, reverse=True)


@lru_cache(maxsize=1024)
def _tick(cron: str, second: int, *, reverse: bool) -> int | None:
    """The tick next to a second. Many functions have the same line, and are due together."""
    parsed = parse_cron(cron)
    if parsed.is_cloudflares:
        ticks = CloudflareCron(parsed.line)
        return ticks.last_ms(second * 1000 - 1) if reverse else ticks.next_ms(second * 1000)
    moment = datetime.fromtimestamp(second, ZoneInfo(parsed.zone))
    found = next(CronSim(parsed.line, moment, reverse=reverse), None)
    return None if found is None else int(found.timestamp()) * 1000


def on_tick(registry: Registry, view: View, timer: Timer, now_ms: int) -> list[Command | Effect]:
    """Start the tick's run, once, and set the next tick."""
    function, cron = registry.named(timer.ref), cron_of(timer)
    trigger = None if function is None else next((one for one in function.config.triggers if one.cron == cron), None)
    if function is None or trigger is None:
        return [Delete("timers", timer.id)]
    scheduled_ms = int(timer.after.partition(" ")[0])
    row: Schedule | None = view.get("schedules", (function.id, cron))
    missed = now_ms - timer.due_ms > MISSED_MS
    if missed and trigger.catchup == "last":
        scheduled_ms = max(scheduled_ms, last_tick_ms(cron, now_ms) or 0)
    commands: list[Command | Effect] = []
    fired_ms = row.fired_ms if row is not None else 0
    if scheduled_ms > fired_ms and (not missed or trigger.catchup is not None):
        commands += fire(registry, view, function, trigger, scheduled_ms, now_ms)
        commands.append(SetRow(Schedule(function_id=function.id, cron=cron, fired_ms=scheduled_ms)))
    after_ms = scheduled_ms if trigger.catchup == "all" or not missed else now_ms
    return [*commands, *set_timer(function.id, trigger, max(after_ms, fired_ms), timer)]


def set_timer(function_id: str, trigger: Trigger, after_ms: int, before: Timer | None) -> list[Command | Effect]:
    """The timer of the first tick later than a time, in place of the one before."""
    assert trigger.cron is not None
    tick_ms = next_tick_ms(trigger.cron, after_ms)
    if tick_ms is None:
        return [] if before is None else [Delete("timers", before.id)]
    timer = Timer(
        id=timer_id(function_id, trigger.cron) if before is None else before.id,
        due_ms=tick_ms + jitter_ms(function_id, trigger, tick_ms),
        kind=TimerKind.CRON,
        ref=function_id,
        after=f"{tick_ms} {trigger.cron}",
    )
    return [Put(timer) if before is None else SetRow(timer), TimerSet(timer.id, timer.due_ms)]


def fire(registry: Registry, view: View, function: Function, trigger: Trigger, scheduled_ms: int, now_ms: int) -> list[Command | Effect]:
    """The tick's event and run."""
    assert trigger.cron is not None
    key, data = _told(trigger.cron, scheduled_ms, now_ms)
    event = EventRow(
        id=derived_ulid(now_ms, function.id, trigger.cron, str(scheduled_ms)),
        key=key,
        name=SCHEDULED,
        data=data,
        user=b"{}",
        ts=now_ms,
        v=None,
        meta=None,
        received_ms=now_ms,
    )
    decision = Decision(registry, view, now_ms)
    wish = Wish(
        function=function,
        run_id=derived_ulid(scheduled_ms, function.id, trigger.cron),
        event_ids=(event.id,),
        cause="cron",
        origin=trigger.cron,
        due_ms=now_ms,
        body=lambda: event_body(event),
        gates=unbatched(function.rules.gates(event_body(event), now_ms)) if function.gated else OPEN,
    )
    commands, _ = ask_at_once(decision, wish)
    return [Put(event), *commands, *settle(decision)]


@lru_cache(maxsize=64)
def _told(cron: str, scheduled_ms: int, now_ms: int) -> tuple[str, Json]:
    """The event's key and data, which functions that are due together share."""
    return format_date(scheduled_ms), scheduled_data(cron, scheduled_ms, now_ms)


def select_schedules(function_id: str, config: FunctionConfig) -> list[Selection]:
    """The timers and last ticks of a function's schedules."""
    selections: list[Selection] = []
    for cron in crons(config):
        selections += [Select("timers", timer_id(function_id, cron)), Select("schedules", (function_id, cron))]
    return selections


def crons(config: FunctionConfig) -> list[str]:
    """The function's cron lines."""
    return [trigger.cron for trigger in config.triggers if trigger.cron is not None]


def reschedule(
    view: View, function_id: str, before: FunctionConfig | None, now: FunctionConfig | None, now_ms: int
) -> list[Command | Effect]:
    """What a sync does to a function's schedules: a new or changed line begins at its next tick, one that is gone stops (§3.1)."""
    commands: list[Command | Effect] = []
    kept = [trigger for trigger in (now.triggers if now is not None else ()) if trigger.cron is not None]
    for trigger in kept:
        assert trigger.cron is not None
        timer = view.timer(timer_id(function_id, trigger.cron))
        if timer is None or before is None or trigger not in before.triggers:
            row: Schedule | None = view.get("schedules", (function_id, trigger.cron))
            commands += set_timer(function_id, trigger, max(now_ms, row.fired_ms if row is not None else 0), timer)
    for cron in crons(before) if before is not None else ():
        gone = timer_id(function_id, cron)
        if all(trigger.cron != cron for trigger in kept) and view.timer(gone) is not None:
            commands.append(Delete("timers", gone))
    return commands
