"""Events as the event API takes them: every form of the body, every rule, every limit, every error of §2.1."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.events import (
    EVENT_BYTES_MAX,
    EVENT_ID_BYTES_MAX,
    EVENT_NAME_BYTES_MAX,
    EVENTS_PER_REQUEST_MAX,
    TS_MAX_MS,
    TS_MIN_MS,
    Event,
    Parsed,
    events_answer,
    parse_event,
    parse_events,
)

NOW_MS = 1_735_689_600_000


def parse(body: bytes | str | dict[str, Any] | list[Any]) -> Parsed:
    if isinstance(body, dict | list):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    return parse_events(body, received_ms=NOW_MS, new_id=lambda n: f"id-{n}")


def one(body: bytes | str | dict[str, Any]) -> Event:
    parsed = parse(body)
    assert parsed.error is None, parsed.error
    (event,) = parsed.events
    return event


def refused(body: bytes | str | dict[str, Any] | list[Any]) -> str:
    parsed = parse(body)
    assert parsed.error is not None and parsed.error.status == 400
    return str(parsed.error)


def test_an_event_whole() -> None:
    """Every field, put in canonical form."""
    event = one(
        {
            "name": "shop/paid",
            "data": {"b": 1.0, "a": [True, None]},
            "id": "o-1",
            "ts": NOW_MS + 5,
            "user": {"z": 1, "external_id": "u"},
            "v": "2024-1",
            "meta": {"sessions": {"s": "1"}},
        }
    )
    assert event == Event(
        internal_id="id-1",
        id="o-1",
        name="shop/paid",
        data=b'{"a":[true,null],"b":1}',
        user=b'{"external_id":"u","z":1}',
        ts=NOW_MS + 5,
        v="2024-1",
        meta=b'{"sessions":{"s":"1"}}',
        received_ms=NOW_MS,
    )


@pytest.mark.parametrize(
    "body",
    [{"name": "a"}, {"name": "a", "data": None, "id": None, "ts": None, "user": None, "v": None, "meta": None}, {"name": "a", "ts": 0}],
)
def test_what_is_absent_or_null_has_a_default(body: dict[str, Any]) -> None:
    """The id is the internal one, the time is now, objects are empty."""
    assert one(body) == Event(
        internal_id="id-1", id="id-1", name="a", data=b"{}", user=b"{}", ts=NOW_MS, v=None, meta=None, received_ms=NOW_MS
    )


def test_several_events_keep_their_order_and_count() -> None:
    """An array, of which each event gets an id by its number, from 1."""
    parsed = parse([{"name": "a"}, {"name": "b"}])
    assert parsed.error is None
    assert [(event.name, event.internal_id) for event in parsed.events] == [("a", "id-1"), ("b", "id-2")]


@pytest.mark.parametrize("body", [b"", b"  \n", b" " * 100, b"[]"])
def test_nothing_is_no_error(body: bytes) -> None:
    """An empty body, and an empty array, hold no events."""
    assert parse(body) == Parsed((), None)


@pytest.mark.parametrize(
    "body",
    [
        b"name=a&data=1",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--',
        b'"text"',
        b"1",
        b"null",
        b'{"name":',
        b'[{"name":"a"},',
        b"[" * 100_000,
        b'{"name":"a","data":' + b"[" * 100_000,
        b'{"name":"\xff"}',
        b'{"name":"a","data":{"x":NaN}}',
        b'{"name":"a","data":{}} trailing',
    ],
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    """Forms, other JSON, broken JSON: 400."""
    refused(body)


@pytest.mark.parametrize("item", [None, 1, "a", []])
def test_an_item_of_an_array_that_is_no_object_is_refused(item: Any) -> None:
    """Those before it are taken; the error says which it was."""
    parsed = parse([{"name": "a"}, item, {"name": "b"}])
    assert [event.name for event in parsed.events] == ["a"]
    assert "(event 2 of 3)" in str(parsed.error)


def test_leading_white_space_of_any_length_passes() -> None:
    """Also when it is longer than what is looked at first."""
    assert one(b" " * 1000 + b'{"name":"a"}').name == "a"


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": None}, {"data": {}}])
def test_an_empty_name_is_refused(body: dict[str, Any]) -> None:
    """In the words that SDK tests look for."""
    assert refused(body) == "event name is empty"


def test_the_length_of_a_name_is_counted_in_bytes() -> None:
    """512 are taken, one more is not."""
    assert one({"name": "a" * EVENT_NAME_BYTES_MAX})
    assert "512" in refused({"name": "a" * (EVENT_NAME_BYTES_MAX + 1)})
    assert "512" in refused({"name": "é" * (EVENT_NAME_BYTES_MAX // 2 + 1)})


@pytest.mark.parametrize("name", ["inngest/function.finished", "INNGEST/x", "Inngest/"])
def test_reserved_names_are_refused(name: str) -> None:
    """Whatever their case; a name that only begins alike passes."""
    assert "reserved" in refused({"name": name})
    assert one({"name": "inngestion/x"})


@pytest.mark.parametrize("field", ["name", "id", "v"])
@pytest.mark.parametrize("value", [1, True, {}, ["a"]])
def test_texts_must_be_texts(field: str, value: Any) -> None:
    """The error names the field and shows the value."""
    message = refused({"name": "a", field: value})
    assert message.startswith(f"event {field} must be a string, not ")


def test_ids_are_bounded() -> None:
    """They are keys in tables."""
    assert one({"name": "a", "id": "x" * EVENT_ID_BYTES_MAX})
    assert "event id" in refused({"name": "a", "id": "x" * (EVENT_ID_BYTES_MAX + 1)})


@pytest.mark.parametrize("field", ["data", "user"])
@pytest.mark.parametrize("value", [1, "a", [1], True])
def test_objects_must_be_objects(field: str, value: Any) -> None:
    """The error names the field and shows the value, cut where it is long."""
    assert refused({"name": "a", field: value}).startswith(f"event {field} must be an object, not ")
    assert refused({"name": "a", field: "x" * 100}).endswith("…")


@pytest.mark.parametrize("ts", [TS_MIN_MS, TS_MAX_MS, float(NOW_MS)])
def test_times_within_bounds_are_taken(ts: float) -> None:
    """1980 to 2100, also written as a float without a fraction."""
    assert one({"name": "a", "ts": ts}).ts == int(ts)


@pytest.mark.parametrize("ts", [TS_MIN_MS - 1, TS_MAX_MS + 1, -1, 1, 1_735_689_600, 10**30])
def test_times_out_of_bounds_are_refused(ts: int) -> None:
    """Seconds in the place of milliseconds, for one."""
    assert "between 1980-01-01 and 2100-01-01" in refused({"name": "a", "ts": ts})


@pytest.mark.parametrize("ts", ["2025-01-01T00:00:00Z", True, 1.5, [], {}])
def test_times_must_be_whole_numbers(ts: Any) -> None:
    """Nothing else is guessed at."""
    assert "whole number of milliseconds" in refused({"name": "a", "ts": ts})


def test_the_servers_own_key_is_stripped_from_the_data() -> None:
    """At the top only; deeper, and in a text, it is the user's."""
    event = one({"name": "a", "data": {"_inngest": {"fn_id": "x"}, "b": {"_inngest": 1}, "c": '"_inngest"'}})
    assert event.data == b'{"b":{"_inngest":1},"c":"\\"_inngest\\""}'


def test_keys_are_matched_in_any_case() -> None:
    """Unknown ones pass; the exact spelling goes before another one."""
    event = one({"Name": "a", "DATA": {"x": 1}, "ID": "i", "other": 1})
    assert (event.name, event.data, event.id) == ("a", b'{"x":1}', "i")
    assert one({"NAME": "b", "name": "a", "Name": "c"}).name == "a"


@pytest.mark.parametrize(
    ("meta", "stored"),
    [
        ({}, None),
        ({"sessions": {}}, None),
        ({"sessions": {"a": "1"}}, {"a": "1"}),
        ({"propagated_sessions": {"a": "1"}}, {"a": "1"}),
        ({"sessions": {"a": "own"}, "propagated_sessions": {"a": "1", "b": "2"}}, {"a": "own", "b": "2"}),
        ({"sessions": {"a": None}, "propagated_sessions": {"a": "1", "b": "2"}}, {"b": "2"}),
        ({"sessions": None, "propagated_sessions": {"a": "1"}}, None),
        ({"sessions": {"a": "1"}, "propagated_sessions": None}, {"a": "1"}),
        ({"other": 1}, None),
    ],
)
def test_sessions_are_merged(meta: dict[str, Any], stored: dict[str, str] | None) -> None:
    """The event's own go before inherited ones; a null takes one away, `sessions: null` all (§2.1)."""
    expected = None if stored is None else json.dumps({"sessions": stored}, separators=(",", ":")).encode()
    assert one({"name": "a", "meta": meta}).meta == expected


@pytest.mark.parametrize(
    "meta",
    [
        1,
        [],
        {"sessions": 1},
        {"sessions": [], "propagated_sessions": {}},
        {"propagated_sessions": 1},
        {"sessions": {"a": 1}},
        {"sessions": {str(i): "x" for i in range(6)}},
        {"sessions": {"k" * 129: "x"}},
        {"sessions": {"k": "x" * 513}},
        {"sessions": {"k": "é" * 257}},
    ],
)
def test_sessions_that_cannot_be_are_refused(meta: Any) -> None:
    """Wrong types, too many, too long."""
    assert refused({"name": "a", "meta": meta}).startswith("event meta")


def test_the_longest_sessions_are_taken() -> None:
    """Five, of the longest keys and ids; counted after the merge."""
    sessions = {str(i) * 128: "x" * 512 for i in range(5)}
    assert one({"name": "a", "meta": {"sessions": sessions, "propagated_sessions": sessions}}).meta is not None


def test_an_event_has_a_size() -> None:
    """The hard maximum is taken, one byte more is not; a server may set a smaller one."""
    frame = b'{"name":"a","data":{"x":""}}'
    body = frame[:-3] + b"x" * (EVENT_BYTES_MAX - len(frame)) + frame[-3:]
    assert one(body)
    assert f"at most {EVENT_BYTES_MAX}" in refused(body + b" ")
    small = parse_events(frame, received_ms=NOW_MS, new_id=str, event_bytes_max=10)
    assert "at most 10" in str(small.error)


def test_a_large_array_of_large_events_passes() -> None:
    """Eight of one mebibyte each, as an SDK's test posts them."""
    assert len(parse([{"name": "a", "data": {"x": "y" * 1024 * 1024}}] * 8).events) == 8


def test_too_many_events_are_refused_together() -> None:
    """The limit is taken, one more is not, and none of them is."""
    item = b'{"name":"a"}'
    assert len(parse(b"[" + b",".join([item] * EVENTS_PER_REQUEST_MAX) + b"]").events) == EVENTS_PER_REQUEST_MAX
    parsed = parse(b"[" + b",".join([item] * (EVENTS_PER_REQUEST_MAX + 1)) + b"]")
    assert parsed.events == () and "5001 events" in str(parsed.error)


def test_a_payload_may_be_given_its_name() -> None:
    """An invoke's body has none; the server's names may be reserved ones."""
    event = parse_event(b'{"data":{"x":1}}', received_ms=NOW_MS, internal_id="i", name="inngest/function.invoked")
    assert (event.name, event.data) == ("inngest/function.invoked", b'{"x":1}')


def test_functions_see_an_event_in_canonical_order() -> None:
    """Optional fields are left out where there is nothing."""
    event = one({"name": 'a"b', "data": {"x": 1}, "id": "é", "v": "1", "meta": {"sessions": {"s": "1"}}, "user": {"u": 1}})
    expected = '{"data":{"x":1},"id":"é","meta":{"sessions":{"s":"1"}},"name":"a\\"b","ts":1735689600000,"user":{"u":1},"v":"1"}'.encode()
    assert event.wire() == expected
    assert one({"name": "a"}).wire() == b'{"data":{},"id":"id-1","name":"a","ts":1735689600000,"user":{}}'


def test_the_answer_lists_ids_and_has_an_error_only_on_error() -> None:
    """JavaScript takes even a null as an error (§2.1)."""
    assert events_answer(["a", "b"]) == (200, b'{"ids":["a","b"],"status":200}')
    assert events_answer([]) == (200, b'{"ids":[],"status":200}')
    error = ProtocolError('event name is "empty"')
    assert events_answer(["a"], error) == (400, b'{"error":"event name is \\"empty\\"","ids":["a"],"status":400}')
