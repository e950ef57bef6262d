"""Exported spans are read leniently, bounded, and never trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.ids import run_of_trace_id, span_id_of, trace_id_of, ulid
from stepwell.protocol.otlp import SPANS_IN_REQUEST_MAX, attributes_of, parse_otlp

RUN = ulid(1_700_000_000_000, b"0123456789")


def export(*spans: dict[str, Any]) -> dict[str, Any]:
    """A request with these spans."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def span(**fields: Any) -> dict[str, Any]:
    """A span of the run, by its trace id."""
    times = {"startTimeUnixNano": "1000000000", "endTimeUnixNano": 2_000_000_000}
    return {"traceId": trace_id_of(RUN).upper(), "spanId": "AB", "name": "n", **times, **fields}


def test_a_trace_id_leads_back_to_its_run() -> None:
    """Each of the 128 bits is kept; what is no ULID has an id all the same, and what is no trace id leads nowhere."""
    for run_id in (RUN, "0" * 26, "7" + "Z" * 25):
        assert run_of_trace_id(trace_id_of(run_id)) == run_id
    assert len(trace_id_of("R1")) == 32 and run_of_trace_id("short") is None and run_of_trace_id("") is None
    assert len(span_id_of("a", "b")) == 16 != span_id_of("ab")


def test_what_a_span_tells() -> None:
    """Its place, its times, its state; hex in one case."""
    (one,), strangers = parse_otlp(export(span(parentSpanId="CD", kind=3, status={"code": 1})))
    assert strangers == 0
    assert (one.run_id, one.id, one.parent_id, one.step_id, one.kind, one.status) == (RUN, "ab", "cd", "", "client", "ok")
    assert (one.started_ms, one.ended_ms) == (1000, 2000)
    (odd,), _ = parse_otlp(export(span(kind=99, status={"code": -1, "message": None}, endTimeUnixNano="5", name=None)))
    assert (odd.kind, odd.status, odd.message, odd.name, odd.ended_ms) == ("unspecified", "unset", "", "", 1000)


def test_spans_without_a_run_an_id_or_a_time_are_counted() -> None:
    """They are nobody's."""
    strange = [span(traceId=""), span(traceId="zz"), span(spanId=""), span(spanId=7), span(startTimeUnixNano=0), span(endTimeUnixNano="x")]
    found, strangers = parse_otlp(export(*strange, span()))
    assert (len(found), strangers) == (1, len(strange))


def test_attributes_of_every_type() -> None:
    """As JSON has them; whole numbers may come as texts; what is nested too deep is cut."""
    values = {
        "s": {"stringValue": "x"}, "b": {"boolValue": True}, "d": {"doubleValue": 1.5}, "i": {"intValue": "-7"},
        "y": {"bytesValue": "AA=="},
        "a": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "2"}]}},
        "m": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": False}}]}}, "n": {}, "huge": {"intValue": str(10**30)},
    }  # fmt: skip
    told = attributes_of([{"key": key, "value": value} for key, value in values.items()] + ["no pair"])
    assert told == {"s": "x", "b": True, "d": 1.5, "i": -7, "y": "AA==", "a": [1, "2"], "m": {"k": False}, "n": None, "huge": 0}
    deep: dict[str, Any] = {"stringValue": "x"}
    for _ in range(30):
        deep = {"arrayValue": {"values": [deep]}}
    assert "x" not in json.dumps(attributes_of([{"key": "deep", "value": deep}]))
    assert attributes_of(None) == attributes_of({}) == {}


def test_events_are_kept_while_they_are_few() -> None:
    """Exceptions come as events; what is too much is left out with a word."""
    event = {"name": "exception", "timeUnixNano": "3000000000", "attributes": [{"key": "m", "value": {"stringValue": "boom"}}]}
    (one,), _ = parse_otlp(export(span(events=[event])))
    assert json.loads(one.attributes)["events"] == [{"name": "exception", "ms": 3000, "attributes": {"m": "boom"}}]
    large = {"name": "x" * 13_000}
    (one,), _ = parse_otlp(export(span(events=[large])))
    told = json.loads(one.attributes)
    assert told["events"] == [] and "more than is kept" in told["cut"]


def test_what_is_no_export_is_refused() -> None:
    """And so is one with too many spans; parts of a wrong shape are passed over."""
    with pytest.raises(ProtocolError, match="no export of traces"):
        parse_otlp([])
    with pytest.raises(ProtocolError, match="more than") as error:
        parse_otlp(export(*[span(traceId="")] * (SPANS_IN_REQUEST_MAX + 1)))
    assert error.value.status == 413
    for body in ({}, {"resourceSpans": 1}, {"resourceSpans": [1, {"resource": 1, "scopeSpans": [{"scope": 1, "spans": [1]}]}]}):
        assert parse_otlp(body) == ([], 0)
