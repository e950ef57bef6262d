"""Random courses of actors do what their model says; and every guard, taken away, is missed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stepwell.engine.commands import Delete
from stepwell.primitives import actor as machine
from tests.simulation.actors import simulate_actors
from tests.simulation.planting import Plant, assert_noticed

SEEDS = range(1, 301)


@pytest.mark.parametrize("seed", SEEDS)
def test_actors_do_what_the_model_says(seed: int) -> None:
    """Whole units in their order, under one fence at a time; alarms go off, are tried again, and come to an end."""
    simulate_actors(seed)


def stale_fences_may_write(patch: pytest.MonkeyPatch) -> None:
    """An activation that another one has superseded goes on storing."""
    original = machine.on_actor_wrote

    def wrote(view: Any, input: Any, now_ms: int) -> Any:
        actor = view.actor(input.kind, input.name)
        if actor is not None:
            input = msgspec.structs.replace(input, fence=actor.fence)
        return original(view, input, now_ms)

    patch.setattr(machine, "on_actor_wrote", wrote)


def units_are_stored_twice(patch: pytest.MonkeyPatch) -> None:
    """A unit that is told again is stored again."""
    original = machine.on_actor_wrote

    def wrote(view: Any, input: Any, now_ms: int) -> Any:
        actor = view.actor(input.kind, input.name)
        if actor is not None and input.number <= actor.written:
            input = msgspec.structs.replace(input, number=actor.written + 1)
        return original(view, input, now_ms)

    patch.setattr(machine, "on_actor_wrote", wrote)


def fences_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """An actor that left no row behind has the fences of before again."""
    original = machine.on_actor_activated
    patch.setattr(machine, "on_actor_activated", lambda view, input, now_ms: original(view, input, 1))


def deletes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a unit takes away stays."""
    original = machine.store
    patch.setattr(machine, "store", lambda view, actor, wrote: original(view, actor, msgspec.structs.replace(wrote, deletes=())))


def clearing_has_no_cursor(patch: pytest.MonkeyPatch) -> None:
    """What was cleared stays in the store for ever."""
    patch.setattr(machine, "clear_later", lambda actor, now_ms: [])


def clearing_ends_early(patch: pytest.MonkeyPatch) -> None:
    """The cursor takes one step."""
    original = machine.on_clear

    def clear(view: Any, timer: Any, now_ms: int) -> Any:
        commands = [command for command in original(view, timer, now_ms) if isinstance(command, Delete) and command.table != "timers"]
        return [*commands, Delete("timers", timer.id)]

    patch.setattr("stepwell.primitives.timers_actors.on_clear", clear)


def alarms_run_over(patch: pytest.MonkeyPatch) -> None:
    """An alarm that is set while another runs has its timer at once."""
    original = machine.set_alarm

    def set_alarm(view: Any, actor: Any, alarm_ms: Any) -> Any:
        row, commands = original(view, actor, alarm_ms)
        return row, commands if alarm_ms is None else machine.due(row, alarm_ms)

    patch.setattr(machine, "set_alarm", set_alarm)


def taking_back_stops_no_retry(patch: pytest.MonkeyPatch) -> None:
    """`delete_alarm` in the alarm's own run does not count."""
    original = machine.set_alarm

    def set_alarm(view: Any, actor: Any, alarm_ms: Any) -> Any:
        row, commands = original(view, actor, alarm_ms)
        return msgspec.structs.replace(row, fired_ms=actor.fired_ms), commands

    patch.setattr(machine, "set_alarm", set_alarm)


def old_answers_count(patch: pytest.MonkeyPatch) -> None:
    """An alarm's answer that comes too late ends the alarm that runs now."""
    original = machine.on_alarm_answered

    def answered(view: Any, input: Any, now_ms: int) -> Any:
        actor = view.actor(input.kind, input.name)
        return original(view, input if actor is None else msgspec.structs.replace(input, firing=actor.firings), now_ms)

    patch.setattr(machine, "on_alarm_answered", answered)


def alarms_are_tried_for_ever(patch: pytest.MonkeyPatch) -> None:
    """There is no last retry."""
    patch.setattr(machine, "RETRIES_MAX", 100)
    patch.setattr(machine, "RETRY_S", (2,) * 101)


def dead_nodes_keep_their_alarms(patch: pytest.MonkeyPatch) -> None:
    """What an epoch that is over was running stays so."""
    patch.setattr(machine, "refire_later", lambda view, others, now_ms: [])


def one_step_refires_all(patch: pytest.MonkeyPatch) -> None:
    """The cursor ends after its first step."""
    original = machine.on_refire

    def refire(view: Any, timer: Any, now_ms: int) -> Any:
        commands = original(view, timer, now_ms)
        return [*commands[:-1], Delete("timers", timer.id)]

    patch.setattr("stepwell.primitives.timers_actors.on_refire", refire)


def empty_actors_stay(patch: pytest.MonkeyPatch) -> None:
    """An actor that has nothing keeps its row."""
    patch.setattr(machine, "is_empty", lambda actor: False)


def gaps_are_stored_over(patch: pytest.MonkeyPatch) -> None:
    """A unit is stored although the one before it was not."""
    original = machine.on_actor_wrote

    def wrote(view: Any, input: Any, now_ms: int) -> Any:
        actor = view.actor(input.kind, input.name)
        if actor is not None and input.number > actor.written + 1:
            input = msgspec.structs.replace(input, number=actor.written + 1)
        return original(view, input, now_ms)

    patch.setattr(machine, "on_actor_wrote", wrote)


def units_lose_their_alarm(patch: pytest.MonkeyPatch) -> None:
    """The alarm of a unit that also writes is dropped: half a unit."""
    original = machine.on_actor_wrote

    def wrote(view: Any, input: Any, now_ms: int) -> Any:
        if input.puts:
            input = msgspec.structs.replace(input, alarm=msgspec.UNSET)
        return original(view, input, now_ms)

    patch.setattr(machine, "on_actor_wrote", wrote)


PLANTS: list[Plant] = [
    stale_fences_may_write,
    units_are_stored_twice,
    fences_begin_anew,
    deletes_are_forgotten,
    clearing_has_no_cursor,
    clearing_ends_early,
    alarms_run_over,
    taking_back_stops_no_retry,
    old_answers_count,
    alarms_are_tried_for_ever,
    dead_nodes_keep_their_alarms,
    one_step_refires_all,
    empty_actors_stay,
    gaps_are_stored_over,
    units_lose_their_alarm,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed of a few hundred fails with the guard taken away."""
    assert_noticed(plant, monkeypatch, SEEDS, simulate_actors)
