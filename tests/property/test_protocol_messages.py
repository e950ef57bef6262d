"""Messages round-trip, and no peer makes a reader raise."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import ProtocolError
from stepwell.protocol.answers import Answer, Failed, Ops, Returned, encode_answer, parse_answer, parse_retry_after_ms
from stepwell.protocol.calls import CallRequest, decode_call, encode_call
from stepwell.protocol.codec import canonical, canonicalize
from stepwell.protocol.cron import parse_cron
from stepwell.protocol.durations import DURATION_MAX_MS, format_duration, parse_date_ms, parse_due_ms, parse_duration_ms
from stepwell.protocol.events import OWN_KEY, Event, parse_events
from stepwell.protocol.frames import Answered, Call, decode_from_child, decode_from_server, encode_frame
from stepwell.protocol.functions import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    config_from_json,
    config_json,
    encode_registration,
    parse_functions,
    parse_registration,
    registration,
)
from stepwell.protocol.ids import is_ulid, seeded_ulid, ulid, ulid_ms
from stepwell.protocol.ops import OPCODES, Op, encode_ops, parse_ops, sleep_until_ms, timeout_ms, wait_until_ms
from stepwell.protocol.signatures import sign, verify

NOW_MS = 1_735_689_600_000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts.filter(bool)
numbers = st.integers(0, 2**31 - 1)
plain = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)
objects = st.dictionaries(texts, values, max_size=4)
bodies = values.map(canonical)
errors = st.builds(lambda rest, name, message: canonical({**rest, "name": name, "message": message}), objects, names, texts)
some = bodies.filter(lambda body: body != b"null")


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


ops = st.builds(
    Op,
    op=st.sampled_from(sorted(OPCODES)),
    id=names,
    name=texts,
    display_name=texts,
    opts=maybe(some),
    data=maybe(some),
    error=errors,
    user_id=names,
    index=numbers,
    started_ms=st.integers(1, 2**42),
    duration_ms=st.integers(0, 2**32),
)
requests = st.builds(
    CallRequest,
    run_id=texts,
    function_id=names,
    function_uuid=texts,
    app_id=st.just(""),
    url=st.just(""),
    step_id=names,
    attempt=numbers,
    max_attempts=st.integers(1, 21),
    request_version=st.integers(-1, 2),
    stack=st.lists(texts, max_size=4).map(tuple),
    disable_immediate_execution=st.booleans(),
    item_id=texts,
    fence=numbers,
    request_id=texts,
    events=st.lists(objects.map(canonical), min_size=1, max_size=3).map(tuple),
    steps=st.dictionaries(texts, bodies, max_size=4),
)
retries_after = st.none() | st.integers(1, 86_400).map(lambda seconds: seconds * 1000)
answers: st.SearchStrategy[Answer] = (
    st.builds(
        Ops,
        ops=st.lists(ops, max_size=3).map(tuple),
        request_version=st.integers(1, 9),
        no_retry=st.booleans(),
        retry_after_ms=retries_after,
    )
    | st.builds(Returned, data=bodies)
    | st.builds(Failed, error=errors, retriable=st.booleans(), retry_after_ms=retries_after)
)


@given(st.lists(ops, max_size=4))
def test_ops_round_trip(several: list[Op]) -> None:
    """Through the wire form, and as msgpack."""
    assert parse_ops(encode_ops(several)) == tuple(several)


@given(requests)
def test_calls_are_canonical_and_round_trip(request: CallRequest) -> None:
    """What is spliced needs no second pass."""
    body = encode_call(request)
    assert canonicalize(body) == body
    assert decode_call(body, request.function_id, request.step_id) == request
    assert decode_from_server(encode_frame(Call(call_id=1, request=request))) == Call(call_id=1, request=request)


@given(answers)
def test_answers_round_trip(answer: Answer) -> None:
    """Over HTTP, and as frames."""
    status, headers, body = encode_answer(answer)
    assert parse_answer(status, headers, body, now_ms=NOW_MS) == answer
    assert decode_from_child(encode_frame(Answered(call_id=1, answer=answer))) == Answered(call_id=1, answer=answer)


header_values = st.text(max_size=12) | st.sampled_from(
    ["true", "false", "1", "2", "30", "2025-01-01T00:00:00Z", "Wed, 01 Jan 2025 00:00:00 GMT", "²"]
)
header_names = st.sampled_from(
    ["x-inngest-sdk", "x-inngest-sdk-handled", "x-inngest-no-retry", "x-inngest-req-version", "retry-after", "content-type"]
)
json_bodies = values.map(lambda value: json.dumps(value).encode())
op_like = st.fixed_dictionaries(
    {"op": st.sampled_from([*sorted(OPCODES), "x"]) | plain},
    optional=dict.fromkeys(("id", "name", "opts", "data", "error", "userland", "timing"), values),
)
envelopes = st.fixed_dictionaries({}, optional=dict.fromkeys(("status", "headers", "body", "error"), values))


@given(
    st.sampled_from([200, 201, 202, 204, 206, 301, 400, 401, 404, 429, 500, 502, 503, 0, 999]),
    st.dictionaries(header_names, header_values),
    st.binary(max_size=60)
    | json_bodies
    | st.lists(op_like, max_size=3).map(lambda items: json.dumps(items).encode())
    | envelopes.map(lambda envelope: b"  " + json.dumps(envelope).encode())
    | st.sampled_from([b"[" * 5000, b'{"a":' * 5000, b'"\\ud800"', b'[{"op":"StepRun","id":"a","data":NaN}]']),
)
def test_no_answer_makes_the_reader_raise(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever the peer, it is an answer, and what it holds is canonical."""
    answer = parse_answer(status, headers, body, now_ms=NOW_MS)
    match answer:
        case Ops():
            assert answer.request_version >= 1
        case Returned():
            assert canonicalize(answer.data) == answer.data
        case Failed():
            assert canonicalize(answer.error) == answer.error
            error = json.loads(answer.error)
            assert isinstance(error["name"], str) and isinstance(error["message"], str)
        case _:
            raise AssertionError("no peer says that a call was lost")


event_like = st.fixed_dictionaries(
    {}, optional={"name": texts | plain, **dict.fromkeys(("data", "id", "ts", "user", "v", "meta", "Name", "x"), values)}
)


@given(
    st.binary(max_size=60)
    | json_bodies
    | event_like.map(lambda event: json.dumps(event).encode())
    | st.lists(event_like, max_size=4).map(lambda events: json.dumps(events).encode())
)
def test_no_body_makes_the_event_parser_raise(body: bytes) -> None:
    """What is wrong is in the result, behind the events before it, and all that is taken is canonical."""
    parsed = parse_events(body, received_ms=NOW_MS, new_id=lambda n: f"id-{n}")
    assert [event.internal_id for event in parsed.events] == [f"id-{n}" for n in range(1, len(parsed.events) + 1)]
    assert parsed.error is None or 400 <= parsed.error.status < 500
    for event in parsed.events:
        assert canonicalize(event.wire()) == event.wire()


@given(names, objects, objects, texts, texts)
def test_events_hold_what_was_sent(name: str, data: dict[str, Any], user: dict[str, Any], event_id: str, v: str) -> None:
    """Whatever was sent, but for the server's own key."""
    sent = {"name": f"a/{name}", "data": {**data, OWN_KEY: 1}, "user": user, "id": event_id, "v": v}
    parsed = parse_events(json.dumps(sent).encode(), received_ms=NOW_MS, new_id=str)
    assert parsed.error is None
    assert parsed.events == (
        Event(
            internal_id="1",
            id=event_id or "1",
            name=f"a/{name}",
            data=canonical({key: value for key, value in data.items() if key != OWN_KEY}),
            user=canonical(user),
            ts=NOW_MS,
            v=v or None,
            meta=None,
            received_ms=NOW_MS,
        ),
    )


seconds = st.integers(1, 3600).map(lambda s: s * 1000)
expressions = maybe(names)
limits = st.builds(Concurrency, limit=numbers, key=names, scope=st.sampled_from(["fn", "env", "account"]), per=st.just("step"))
run_limits = st.builds(Concurrency, limit=numbers, key=expressions, per=st.just("run"))
triggers = st.builds(lambda event, expression: Trigger(event=f"e/{event.replace('*', '')}x", expression=expression), texts, expressions)
configs = st.builds(
    FunctionConfig,
    id=names,
    name=names,
    triggers=st.lists(triggers, max_size=4, unique=True).map(tuple),
    url=st.sampled_from(["", "https://x.test/api?fnId=a&stepId=step", "wss://connect?fnId=a"]),
    retries=st.integers(0, 20),
    concurrency=st.builds(lambda runs, calls: (*runs, *calls), st.lists(run_limits, max_size=1), st.lists(limits, max_size=2)),
    throttle=maybe(st.builds(Throttle, limit=st.integers(1, 999), period_ms=seconds, burst=numbers, key=expressions)),
    rate_limit=maybe(st.builds(RateLimit, limit=st.integers(1, 999), period_ms=seconds, key=expressions)),
    idempotency=expressions,
    debounce=maybe(st.builds(Debounce, period_ms=seconds, key=expressions, timeout_ms=maybe(seconds))),
    priority=expressions,
    cancel=st.lists(st.builds(Cancel, event=names, where=expressions, timeout=maybe(seconds.map(format_duration))), max_size=5).map(tuple),
    singleton=maybe(st.builds(Singleton, mode=st.sampled_from(["skip", "cancel"]), key=expressions)),
    timeouts=maybe(st.builds(Timeouts, start_ms=seconds, finish_ms=maybe(seconds))),
)
batched = st.builds(
    lambda config, batch: msgspec.structs.replace(config, batch=batch, cancel=(), debounce=None, singleton=None, priority=None),
    configs,
    st.builds(Batch, max_size=st.integers(2, 100), timeout_ms=seconds, key=expressions, where=expressions),
)


@given(st.lists(configs | batched, max_size=3, unique_by=lambda config: config.id))
def test_registrations_round_trip(functions: list[FunctionConfig]) -> None:
    """Through the wire form and the stored one."""
    told = registration(app_name="shop", url="http://x", sdk="s", functions=functions)
    assert parse_registration(encode_registration(told)) == told
    assert [config_from_json(config_json(config)) for config in functions] == functions


config_like = st.fixed_dictionaries(
    {"id": st.just("f"), "name": st.just("f")},
    optional={
        key: values | st.lists(objects, max_size=2)
        for key in (
            "triggers",
            "steps",
            "retries",
            "concurrency",
            "throttle",
            "rateLimit",
            "debounce",
            "batchEvents",
            "cancel",
            "singleton",
        )
    },
)


@given(st.lists(config_like, max_size=2).map(lambda functions: json.dumps(functions).encode()) | json_bodies | st.binary(max_size=40))
def test_no_configuration_makes_the_reader_raise_but_in_words(body: bytes) -> None:
    """A ProtocolError with status 400, or functions."""
    for read in (parse_functions, parse_registration):
        try:
            read(body)
        except ProtocolError as error:
            assert error.status == 400 and str(error)


@given(st.integers(0, DURATION_MAX_MS), st.booleans())
def test_durations_round_trip(ms: int, days: bool) -> None:
    """In every form that we write."""
    assert parse_duration_ms(format_duration(ms, days=days)) == ms


@given(st.text(max_size=40) | st.text(st.sampled_from("0123456789.-:TZ+smhd ,JanWed"), max_size=40))
def test_no_text_makes_the_readers_of_times_raise_but_in_words(text: str) -> None:
    """Durations, dates, due times, cron lines, retries."""
    parse_date_ms(text)
    parse_retry_after_ms(text, NOW_MS)
    for read in (parse_duration_ms, parse_cron, lambda text: parse_due_ms(text, NOW_MS)):
        try:
            read(text)
        except ProtocolError:
            continue


@given(texts | st.sampled_from(["1h", "2030-01-01T00:00:00Z", "1000d"]), maybe(some))
def test_waits_end_between_now_and_a_year_or_are_refused(name: str, opts: bytes | None) -> None:
    """Whatever the op says."""
    op = Op(op="Sleep", id="a", name=name, opts=opts)
    for until in (sleep_until_ms, wait_until_ms, timeout_ms):
        try:
            assert NOW_MS <= until(op, NOW_MS) <= NOW_MS + 366 * 86_400_000
        except ProtocolError:
            continue


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ulids_round_trip(ms: int, entropy: bytes) -> None:
    """Their time is read back, and they sort by it."""
    assert is_ulid(ulid(ms, entropy)) and ulid_ms(ulid(ms, entropy)) == ms
    assert ulid(ms, entropy) <= ulid(ms, b"\xff" * 10)


@given(st.text(max_size=30), st.integers(1, 5000))
def test_seeds_give_an_id_or_none(header: str, n: int) -> None:
    """Nothing else."""
    made = seeded_ulid(header, n)
    assert made is None or is_ulid(made)


@given(st.binary(max_size=50), st.sampled_from(["signkey-test-12ab", "12ab"]), st.integers(0, 2**33), st.text(max_size=90))
def test_only_the_right_signature_verifies(body: bytes, key: str, now_s: int, other: str) -> None:
    """And nothing raises."""
    signature = sign(body, key, now_s)
    assert verify(body, signature, key, now_s)
    assert not verify(body + b" ", signature, key, now_s)
    assert verify(body, other, key, now_s) is (other == signature)
