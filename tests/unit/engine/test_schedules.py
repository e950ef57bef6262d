"""Schedules fire lines of both syntaxes at their ticks, once each, with the trigger's text in the event."""

from __future__ import annotations

from datetime import UTC, datetime

from stepwell.engine.schedules import last_tick_ms, next_tick_ms
from stepwell.protocol.codec import decode
from stepwell.protocol.functions import Trigger
from tests.unit.engine.test_apps import House, function


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1000  # type: ignore[arg-type]


def test_the_mark_says_which_syntax_a_line_has() -> None:
    """Day 6 is a Friday for Cloudflare, a Saturday for everybody else."""
    new_year = ms(2026, 1, 1)
    assert next_tick_ms("0 18 * * 6", new_year) == ms(2026, 1, 3, 18)
    assert next_tick_ms("CLOUDFLARE 0 18 * * 6", new_year) == ms(2026, 1, 2, 18)
    assert next_tick_ms("CLOUDFLARE 0 18 * * 6L", new_year) == ms(2026, 1, 30, 18)
    for cron in ("0 18 * * *", "CLOUDFLARE 0 18 * * *"):
        tick = ms(2026, 1, 1, 18)
        assert (next_tick_ms(cron, tick - 1), next_tick_ms(cron, tick)) == (tick, ms(2026, 1, 2, 18))
        assert (last_tick_ms(cron, tick), last_tick_ms(cron, tick - 60_000)) == (tick, ms(2025, 12, 31, 18))


def test_a_line_of_cloudflares_starts_runs() -> None:
    """The last Friday of each month, one run a tick."""
    house, line = House(), "CLOUDFLARE 0 18 * * 6L"
    house.clock.ms = ms(2026, 1, 1)
    house.sync(function("shop-report", triggers=(Trigger(cron=line),)))
    for tick in (ms(2026, 1, 30, 18), ms(2026, 2, 27, 18)):
        house.wake("cron")
        assert house.clock.ms == tick
        assert house.store.tables.schedules.rows["shop-report", line].fired_ms == tick
    runs = sorted(house.store.tables.runs, key=lambda run: run.id)
    assert [(run.cause, run.origin) for run in runs] == [("cron", line)] * 2
    event = house.store.tables.events.rows[runs[0].event_ids[0]]
    assert decode(event.data)["cron"] == line
