"""Each setting of flow control against a small obvious model of what its users were promised."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from stepwell.engine.expression import compile_expression
from stepwell.engine.flow import keys as flow_keys
from stepwell.engine.flow.batch import compile_batch
from stepwell.engine.flow.debounce import compile_debounce
from stepwell.engine.flow.gates import compile_rules
from stepwell.engine.flow.priority import priority_ms
from stepwell.engine.flow.rate_limit import compile_rate_limit
from stepwell.engine.flow.singleton import compile_singleton
from stepwell.engine.flow.throttle import compile_throttle
from stepwell.engine.model import EventRow, Hold, Rate
from stepwell.protocol.functions import (
    PRIORITY_MAX_S,
    Batch,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Singleton,
    Throttle,
)

GAPS = st.lists(st.integers(0, 3_000), min_size=1, max_size=60)


def event(event_id: str, ts: int = 1, size: int = 2) -> EventRow:
    """A stored event."""
    return EventRow(id=event_id, key=event_id, name="n", data=b"x" * size, user=b"{}", ts=ts, v=None, meta=None, received_ms=ts)


@given(st.integers(1, 7), st.integers(0, 3), st.integers(1_000, 10_000), GAPS)
def test_a_throttle_is_a_bucket_that_refills_evenly(limit: int, burst: int, period_ms: int, gaps: list[int]) -> None:
    """The model: a bucket of `limit + burst` that gets one more each `period / limit`; a start takes one or waits."""
    rule = compile_throttle("f", Throttle(limit=limit, period_ms=period_ms, burst=burst))
    rate: Rate | None = None
    now_ms, level, capacity = 1_000_000, Fraction(limit + burst), Fraction(limit + burst)
    each_us = Fraction(rule.interval_us)  # a started microsecond counts whole
    for gap in gaps:
        now_ms += gap
        level = min(capacity, level + Fraction(gap * 1000) / each_us)
        assert rule.room(rate, now_ms) == int(level), (now_ms, level)
        if level >= 1:
            assert rule.next_ms(rate, now_ms) == now_ms
            level -= 1
            rate = rule.taken(rate, "k", now_ms)
        else:
            due_ms = rule.next_ms(rate, now_ms)
            assert due_ms > now_ms
            assert rule.room(rate, due_ms) >= 1 and rule.room(rate, due_ms - 1) == 0


@given(st.integers(1, 5), st.integers(0, 3), st.integers(1_000, 10_000), st.integers(0, 20))
def test_the_nth_start_in_line_is_foretold(limit: int, burst: int, period_ms: int, ahead: int) -> None:
    """What is said of a start with others ahead of it comes true when they all start as soon as they may."""
    rule = compile_throttle("f", Throttle(limit=limit, period_ms=period_ms, burst=burst))
    now_ms, rate = 5_000_000, rule.taken(rule.taken(None, "k", 5_000_000), "k", 5_000_000)
    foretold_us = max(now_ms * 1000, rate.until_us + (ahead + 1 - rule.capacity) * rule.interval_us)
    assert rule.next_ms(rate, now_ms, ahead) == -(-foretold_us // 1000)
    at_ms, state = now_ms, rate
    for _ in range(ahead):
        at_ms = rule.next_ms(state, at_ms)
        state = rule.taken(state, "k", at_ms)
    # Each start is rounded up to a millisecond, and none of them pushes the next one on by more than that.
    assert 0 <= rule.next_ms(state, at_ms) - rule.next_ms(rate, now_ms, ahead) <= ahead


@given(st.integers(1, 5), st.integers(1_000, 10_000), GAPS)
def test_a_rate_limit_counts_in_windows(limit: int, period_ms: int, gaps: list[int]) -> None:
    """The model: the first admitted run opens a window; so many in it, the others are dropped."""
    rule = compile_rate_limit("f", RateLimit(limit=limit, period_ms=period_ms), None)
    assert rule is not None
    rate: Rate | None = None
    now_ms, opened, admitted = 1_000_000, -(10**9), 0
    for gap in gaps:
        now_ms += gap
        if now_ms >= opened + period_ms:
            opened, admitted = now_ms, 0
        taken = rule.taken(rate, "k", now_ms)
        assert (taken is not None) == (admitted < limit)
        if taken is not None:
            rate, admitted = taken, admitted + 1


def test_an_idempotency_key_is_one_run_a_day() -> None:
    """It takes the place of a rate limit; the value false is no key."""
    rule = compile_rate_limit("f", RateLimit(limit=9, period_ms=1_000), "event.data.id")
    assert rule is not None and (rule.limit, rule.period_ms, rule.name) == (1, 24 * 3600 * 1000, "idempotency")
    assert rule.counter({"data": {"id": False}}, 0) is None
    assert rule.counter({"data": {"id": 1}}, 0) == rule.counter({"data": {"id": 1.0}}, 0) != rule.counter({"data": {"id": 2}}, 0)


@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 5)), min_size=1, max_size=30), st.booleans())
def test_a_debounce_keeps_the_last_and_waits_anew(course: list[tuple[int, int]], limited: bool) -> None:
    """The model: due a period after the last event that counts, at the latest a timeout after the first; older ones change nothing."""
    rule = compile_debounce("f", Debounce(period_ms=2_000, timeout_ms=5_000 if limited else None))
    hold: Hold | None = None
    now_ms = 1_000_000
    first_ms = due_ms = ts_kept = 0
    kept = ""
    for n, (gap, ts) in enumerate(course):
        now_ms += gap
        if hold is not None and now_ms >= due_ms:
            hold = None  # its run was made
        if hold is None:
            first_ms, ts_kept = now_ms, -1
        if ts >= ts_kept:
            kept, ts_kept = f"e{n}", ts
            due_ms = min(now_ms + 2_000, first_ms + 5_000) if limited else now_ms + 2_000
        hold = rule.kept(hold, "h", event(f"e{n}", ts), now_ms)
        assert (hold.events, hold.due_ms, hold.first_ms) == ((kept,), due_ms, first_ms)


@given(st.lists(st.integers(1, 6 * 1024 * 1024), min_size=1, max_size=12), st.integers(2, 5))
def test_a_batch_is_full_by_count_or_by_bytes(sizes: list[int], most: int) -> None:
    """The model: a list in the order of arrival, closed at a count, or when its data is ten mebibytes."""
    rule = compile_batch("f", Batch(max_size=most, timeout_ms=1_000))
    hold: Hold | None = None
    events: list[str] = []
    total = 0
    for n, size in enumerate(sizes):
        events, total = [*events, f"e{n}"], total + size
        hold = rule.joined(hold, "h", event(f"e{n}", size=size), ("k",), 1_000 + n)
        assert (list(hold.events), hold.size, hold.due_ms) == (events, total, hold.first_ms + 1_000)
        assert rule.is_full(hold) == (len(events) >= most or total >= 10 * 1024 * 1024)
        if rule.is_full(hold):
            hold, events, total = None, [], 0


def test_an_event_that_a_condition_leaves_out_is_not_batched() -> None:
    """It starts a run by itself, and so does one that the condition cannot be asked of."""
    rule = compile_batch("f", Batch(max_size=2, timeout_ms=1_000, key="event.data.k", where="event.data.many == true"))
    assert rule.hold_id({"data": {"many": False}}, 0) is None and rule.hold_id({"data": {}}, 0) is None
    assert rule.hold_id({"data": {"many": True, "k": 1}}, 0) != rule.hold_id({"data": {"many": True, "k": 2}}, 0)


@given(
    st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=3), st.none(), st.booleans())
)
def test_priority_is_seconds_within_bounds(value: object) -> None:
    """A number counts, within twelve hours; anything else is nothing."""
    ahead_ms = priority_ms(compile_expression("event.data.p"), {"data": {"p": value}}, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        assert ahead_ms == 0
    else:
        assert ahead_ms == int(min(max(value, -PRIORITY_MAX_S), PRIORITY_MAX_S) * 1000)


def test_a_singletons_name_is_its_keys_value() -> None:
    """One name a value; false is none; a key that cannot be evaluated is like null."""
    rule = compile_singleton("f", Singleton(mode="skip", key="event.data.k"))
    assert rule.name({"data": {"k": False}}, 0) is None
    assert rule.name({"data": {"k": "a"}}, 0) != rule.name({"data": {"k": "b"}}, 0)
    assert compile_singleton("f", Singleton(mode="skip")).name({}, 0) == "singleton/f/"
    broken = compile_singleton("f", Singleton(mode="skip", key="event.data.k + [1]"))
    assert broken.name({"data": {"k": {}}}, 0) is not None


@given(st.lists(st.text(alphabet="ab/%é\n", max_size=400), min_size=2, max_size=2, unique=True))
def test_values_of_a_key_have_counters_of_their_own(values: list[str]) -> None:
    """Whatever the value holds and however long it is; and a key's counters are found by its prefix alone."""
    config = FunctionConfig(
        id="f", name="f", concurrency=(Concurrency(limit=1, key="event.data.a"), Concurrency(limit=2, key="event.data.a / 2"))
    )
    rules = compile_rules("f", config)
    first, second = ([limit.counter({"data": {"a": value}}, 0) for limit in rules.limits] for value in values)
    assert first[0] != second[0] and len(first[0]) < 400
    assert rules.limit_of(first[0]) == 1 and rules.limit_of(first[1]) == 2 and rules.limit_of("fn/g//") is None


def test_two_limits_of_one_key_are_the_smaller() -> None:
    """They count the same calls, which are counted once."""
    rules = compile_rules("f", FunctionConfig(id="f", name="f", concurrency=(Concurrency(limit=5), Concurrency(limit=3))))
    assert [limit.limit for limit in rules.limits] == [3] and len(rules.keys({}, 0)) == 1


def test_keys_say_what_they_gate() -> None:
    """A run's keys in the order in which they are asked; each is of calls, of the run, of its start, or a weight."""
    config = FunctionConfig(
        id="f",
        name="f",
        throttle=Throttle(limit=1, period_ms=1_000),
        concurrency=(
            Concurrency(limit=2, key="event.data.t", scope="account", weight="event.data.w"),
            Concurrency(limit=1, key="event.data.t", per="run"),
        ),
    )
    keys = compile_rules("f", config).keys({"data": {"t": "acme", "w": 3}}, 0)
    assert keys == ("throttle/f//", "run/fn/f/event.data.t/acme", "account/account/event.data.t/acme", "weight/3")
    assert flow_keys.of_calls(keys) == keys[2:3] and flow_keys.of_runs(keys) == keys[1:2] and flow_keys.of_throttles(keys) == keys[:1]
    assert flow_keys.weight_of(keys) == 3 and flow_keys.gating(keys) == keys[:3]
    assert [flow_keys.gates_starts_only(key) for key in keys] == [True, True, False, False]
