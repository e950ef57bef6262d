"""Syncs and removals: what is taken, what is refused with its reason, and what becomes of runs whose app changes meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stepwell.engine.inputs import AppRemoved, AppSynced, Ask, CallAnswered, Claim, EventsReceived, NodeStarted, Removed, Synced, TimerDue
from stepwell.engine.invariants import violations
from stepwell.engine.model import Item, RunStatus
from stepwell.engine.registry import Settings
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.calls import Answer, Failed, Ops, Returned
from stepwell.protocol.events import Event
from stepwell.protocol.functions import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Singleton,
    Throttle,
    Trigger,
    registration,
)
from stepwell.protocol.ids import app_uuid
from stepwell.protocol.ops import Op
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.clock import VirtualClock, at_once

URL = "http://localhost:3000/api/inngest"


def function(slug: str = "shop-charge", **fields: Any) -> FunctionConfig:
    defaults: dict[str, Any] = {"name": slug, "triggers": (Trigger(event="shop/paid"),), "url": f"{URL}?fnId={slug}&stepId=step"}
    return FunctionConfig(id=slug, **(defaults | fields))


class House:
    """A heart over a memory store. Every input is followed by a look at the invariants."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock(random.Random(1))
        self.heart = Heart(self.store, self.clock, Settings(retry_interval_ms=0))
        self.give(NodeStarted("n", "n/1"))
        self.events = 0

    def give(self, input: Any) -> Any:
        """The reply to an input. Raises what it is refused with."""
        (decided,) = at_once(self.heart.handle([input])).decided
        assert violations(self.store.tables) == []
        at_once(self.heart.reload())
        if decided.error is not None:
            raise decided.error
        return reply_of(decided)

    def sync(self, *functions: FunctionConfig, app: str = "shop", url: str = URL, sdk: str = "js:v4.24.0", driver: str = "http") -> Synced:
        """An app tells its functions."""
        synced: Synced = self.give(AppSynced(registration(app_name=app, url=url, sdk=sdk, functions=functions), driver))
        return synced

    def send(self, name: str = "shop/paid") -> None:
        """An event comes in."""
        self.events += 1
        event_id = f"01J0000000000000000000000{self.events}"
        fields = {"name": name, "data": b"{}", "user": b"{}", "ts": 1, "v": None, "meta": None, "received_ms": 1}
        self.give(EventsReceived((Event(internal_id=event_id, id=event_id, **fields),), fresh=True))

    def claim(self, function_id: str = "shop-charge") -> Item:
        """Lease the one item that is ready."""
        self.give(Claim("n/1", (Ask(function_id, 1),)))
        (item,) = [item for item in self.store.tables.items if item.holder is not None]
        return item

    def answer(self, item: Item, answer: Answer) -> None:
        """End a call."""
        self.give(CallAnswered(item.run_id, item.id, item.fence, answer))

    def wake(self, kind: str) -> None:
        """Let the one timer of a kind be due."""
        (timer,) = [timer for timer in self.store.tables.timers if timer.kind == kind]
        self.clock.ms = max(self.clock.ms, timer.due_ms)
        self.give(TimerDue(timer.id))

    def crons(self) -> list[str]:
        """The cron lines that will tick."""
        return sorted(timer.after.partition(" ")[2] for timer in self.store.tables.timers if timer.kind == "cron")

    def run(self) -> Any:
        """The run that the event started."""
        (run,) = [run for run in self.store.tables.runs if run.cause == "event"]
        return run

    def row(self, function_id: str = "shop-charge") -> Any:
        """A function's row."""
        return self.store.tables.functions.rows[function_id]


def reply_of(decided: Decided) -> Any:
    return next((effect.value for effect in decided.effects if hasattr(effect, "value")), None)


def refused(*functions: FunctionConfig, house: House | None = None, **told: Any) -> str:
    """Why a registration is not taken; nothing of it is written."""
    house = house or House()
    before = (dict(house.store.tables.apps.rows), dict(house.store.tables.functions.rows), dict(house.store.tables.timers.rows))
    with pytest.raises(ProtocolError) as caught:
        house.sync(*functions, **told)
    assert caught.value.status == 400
    assert before == (house.store.tables.apps.rows, house.store.tables.functions.rows, house.store.tables.timers.rows)
    return str(caught.value)


WHERE = [
    ("triggers[0].expression", {"triggers": (Trigger(event="a", expression="event.data ="),)}),
    ("concurrency[1].key", {"concurrency": (Concurrency(limit=1), Concurrency(limit=1, key="event.data ="))}),
    ("throttle.key", {"throttle": Throttle(limit=1, period_ms=1000, key="event.data =")}),
    ("rateLimit.key", {"rate_limit": RateLimit(limit=1, period_ms=1000, key="event.data =")}),
    ("idempotency", {"idempotency": "event.data ="}),
    ("debounce.key", {"debounce": Debounce(period_ms=1000, key="event.data =")}),
    ("batchEvents.key", {"batch": Batch(max_size=2, timeout_ms=1000, key="event.data =")}),
    ("batchEvents.if", {"batch": Batch(max_size=2, timeout_ms=1000, where="event.data =")}),
    ("priority.run", {"priority": "event.data ="}),
    ("singleton.key", {"singleton": Singleton(mode="skip", key="event.data =")}),
    ("cancel[0].if", {"cancel": (Cancel(event="a", where="event.data ="),)}),
]


@pytest.mark.parametrize(("field", "fields"), WHERE, ids=[field for field, _ in WHERE])
def test_an_expression_that_does_not_compile_is_refused_where_it_stands(field: str, fields: dict[str, Any]) -> None:
    """Function, field and text are named; the sound function beside it is not taken either (§3.4)."""
    message = refused(function("shop-sound", triggers=(Trigger(cron="* * * * *"),)), function(**fields))
    assert message.startswith(f"function 'shop-charge': {field}: ") and "event.data =" in message


@pytest.mark.parametrize(
    "where",
    [
        "event.data.id == async.data.id",
        "async.data.n > 3 && !(async.data.kind in ['a', 'b']) || event.data['x'] == null",
        "int(async.data.n) >= 3 ? true : double(event.data.n) < uint(async.data.m)",
    ],
)
def test_a_cancel_rule_compares(where: str) -> None:
    """Comparisons, logic, ternary, `in`, selection and conversions of numbers are all it may use (§10)."""
    assert House().sync(function(cancel=(Cancel(event="a", where=where),))).modified


@pytest.mark.parametrize(
    "where",
    [
        "event.data.list.exists(x, x == async.data.id)",
        "event.data.n + 1 == async.data.n",
        "async.data.name.startsWith('a')",
        "size(async.data.list) == 1",
        "async.data.at < now()",
        "lowercase(async.data.a) == 'a'",
        "other.data.id == event.data.id",
    ],
)
def test_a_cancel_rule_does_no_more_than_compare(where: str) -> None:
    """Macros, arithmetic, functions of strings and dates are refused, with what to do instead."""
    message = refused(function(cancel=(Cancel(event="a", where=where),)))
    assert message.startswith("function 'shop-charge': cancel[0].if: ") and where in message


def test_the_other_event_is_known_to_cancel_rules_only() -> None:
    """A trigger sees its own event."""
    assert "there is no variable 'async'" in refused(function(triggers=(Trigger(event="a", expression="async.data.x"),)))


@pytest.mark.parametrize("sdk", ["js:v3.22.0", "js:v3.40.7", "js:v3.53.1", "inngest-js:v3.30.0"])
def test_sdks_with_a_security_hole_are_refused(sdk: str) -> None:
    """By a code that tools know (§3.1)."""
    with pytest.raises(ProtocolError, match=r"security advisory .* upgrade to one newer than 3\.53\.1") as caught:
        House().sync(function(), sdk=sdk)
    assert caught.value.code == "sdk_version_denied"


@pytest.mark.parametrize("sdk", ["js:v3.21.9", "js:v3.53.2", "js:v3.54.2", "js:v4.24.0", "py:v3.30.0", "go:v0.8.0", "", "js:canary"])
def test_other_sdks_are_served(sdk: str) -> None:
    """The ones beside the range, other languages, and versions that cannot be read."""
    assert House().sync(function(), sdk=sdk).modified


def test_what_did_not_change_is_not_written_again() -> None:
    """`modified: false`; another SDK, URL or driver counts as a change."""
    house = House()
    assert house.sync(function()).modified and not house.sync(function()).modified
    assert house.sync(function(), sdk="js:v4.25.0").modified
    assert house.sync(function(), url="http://localhost:4000/api/inngest", sdk="js:v4.25.0").modified
    assert house.row().version == 3


def test_an_app_is_known_by_its_name() -> None:
    """Its ids come of the name alone; names that differ in case are two apps."""
    house = House()
    assert house.sync(function()).app_id == app_uuid("shop")
    assert (
        house.sync(function("Shop-charge"), app="Shop", url="http://localhost:1/api/inngest").app_id == app_uuid("Shop") != app_uuid("shop")
    )
    assert len(house.store.tables.apps) == 2 and not any(app.archived for app in house.store.tables.apps)


def test_a_function_of_another_app_is_not_taken_over() -> None:
    """`a` with `b-c` and `a-b` with `c` have the same composite id: the second one is refused, by name."""
    house = House()
    house.sync(function("a-b-c"), app="a")
    message = refused(function("a-b-c"), app="a-b", url="http://localhost:1/x", house=house)
    assert "belongs to the app 'a'" in message and "stepwell apps remove a" in message
    house.give(AppRemoved("a"))
    house.sync(function("a-b-c"), app="a-b", url="http://localhost:1/x")
    assert house.row("a-b-c").app_name == "a-b"


def test_another_name_from_the_same_url_takes_the_place_of_the_first() -> None:
    """An app that was renamed does not run twice: the old name is archived with its functions and cron lines."""
    house = House()
    house.sync(function(), function("shop-tick", triggers=(Trigger(cron="* * * * *"),)))
    house.sync(function("store-charge"), app="store")
    apps = house.store.tables.apps.rows
    assert (apps["shop"].archived, apps["store"].archived) == (True, False)
    assert (house.row().archived, house.row("shop-tick").archived, house.row("store-charge").archived) == (True, True, False)
    assert house.crons() == []
    house.sync(function())
    assert (apps["shop"].archived, apps["store"].archived) == (False, True) and house.row().version == 2


def test_apps_without_a_url_stand_beside_each_other() -> None:
    """Child processes and workers have none."""
    house = House()
    house.sync(function(), url="", driver="process")
    house.sync(function("other-f"), app="other", url="", driver="connect")
    assert not any(app.archived for app in house.store.tables.apps)


def test_a_function_that_is_told_no_longer_is_archived_and_comes_back() -> None:
    """Nothing starts it meanwhile; it comes back as the next version."""
    house = House()
    house.sync(function(), function("shop-other"))
    house.sync(function("shop-other"))
    assert house.row().archived and house.row("shop-other").version == 2
    house.send()
    assert [run.function_id for run in house.store.tables.runs] == ["shop-other"]
    house.sync(function(), function("shop-other"))
    assert not house.row().archived and house.row().version == 2


def test_cron_lines_follow_the_registration() -> None:
    """A changed line takes the place of the old one, a function that goes takes its lines along, one that comes back has them again."""
    house = House()
    house.sync(function(triggers=(Trigger(cron="0 8 * * *"), Trigger(cron="0 9 * * *"))))
    assert house.crons() == ["0 8 * * *", "0 9 * * *"]
    house.sync(function(triggers=(Trigger(cron="0 9 * * *"), Trigger(cron="TZ=Europe/Berlin 0 10 * * *"))))
    assert house.crons() == ["0 9 * * *", "TZ=Europe/Berlin 0 10 * * *"]
    house.sync()
    assert house.crons() == []
    house.sync(function(triggers=(Trigger(cron="0 9 * * *"),)))
    assert house.crons() == ["0 9 * * *"]


def test_a_removed_app_starts_nothing_and_its_run_goes_on() -> None:
    """The sleeping run is called again when its time has come, and ends as its app says."""
    house = House()
    house.sync(function(), function("shop-tick", triggers=(Trigger(cron="* * * * *"),)))
    house.send()
    house.answer(house.claim(), Ops(ops=(Op(op="Sleep", id="z", name="10s"),), request_version=2))
    assert house.give(AppRemoved("shop")) == Removed(app_name="shop", functions=2)
    assert house.crons() == [] and house.store.tables.apps.rows["shop"].archived
    house.send()
    assert len(house.store.tables.runs) == 1
    house.wake("sleep")
    house.answer(house.claim(), Returned(data=b'"done"'))
    assert (house.run().status, house.run().output) == (RunStatus.COMPLETED, b'"done"')
    with pytest.raises(NotFound, match="'shop'"):
        house.give(AppRemoved("shop"))


def test_an_app_that_was_removed_may_come_back_unchanged() -> None:
    """The same registration is a change then."""
    house = House()
    house.sync(function())
    house.give(AppRemoved("shop"))
    assert house.sync(function()).modified and not house.row().archived


def test_a_run_in_flight_has_the_settings_that_hold_now() -> None:
    """With fewer retries than it has used already, a run fails at its next failure; the URL is the new one (§11.3)."""
    house = House()
    house.sync(function(retries=4))
    house.send()
    failure = Failed(error=b'{"message":"m","name":"n"}', retriable=True)
    for _ in range(2):
        house.answer(house.claim(), failure)
        house.wake("item")
    item = house.claim()
    moved = "http://localhost:4000/api/inngest"
    house.sync(function(retries=1, url=f"{moved}?fnId=shop-charge&stepId=step"), url=moved)
    assert house.heart.registry.functions["shop-charge"].config.url.startswith(moved)
    house.answer(item, failure)
    assert house.run().status is RunStatus.FAILED
    assert house.run().function_version == 1 and house.row().version == 2


def test_a_function_that_is_gone_still_answers_for_its_runs() -> None:
    """Its retries and its item are those of the row that stays."""
    house = House()
    house.sync(function(retries=1))
    house.send()
    item = house.claim()
    house.sync()
    house.answer(item, Failed(error=b'{"message":"m","name":"n"}', retriable=True))
    house.wake("item")
    house.answer(house.claim(), Failed(error=b'{"message":"m","name":"n"}', retriable=True))
    assert house.run().status is RunStatus.FAILED
