"""Exported traces (OTLP, as JSON or the same as decoded protobuf): the spans, and which run and step each belongs to."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical
from stepwell.protocol.ids import run_of_trace_id

SPANS_IN_REQUEST_MAX = 10_000
NAME_CHARS_MAX = 512
ATTRIBUTES_BYTES_MAX = 12 * 1024
"""Of one span's attributes and events; its events go first where they are more."""
RUN, STEP = "sdk.run.id", "inngest.step.hash"
"""The attributes by which SDKs say where a span belongs."""
KEPT_OF_RESOURCE = ("service.name", "service.version", "service.instance.id", "telemetry.sdk.language", "telemetry.sdk.name")
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: tuple[Literal["unset", "ok", "error"], ...] = ("unset", "ok", "error")


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A span of a run. `attributes`: `{"span": {…}, "resource": {…}, "scope": {…}, "events": […]}`, canonical."""

    run_id: str
    id: str
    parent_id: str
    step_id: str
    name: str
    kind: str
    status: Literal["unset", "ok", "error"]
    message: str
    attributes: Json
    started_ms: int
    ended_ms: int


def parse_otlp(body: Any) -> tuple[list[Exported], int]:
    """The spans of a decoded request that belong to runs, and how many do not. Ids are hex. Raises `ProtocolError`."""
    if not isinstance(body, dict):
        raise ProtocolError('the body is no export of traces: {"resourceSpans": […]}')
    found: list[Exported] = []
    strangers = 0
    for resource in _dicts(body.get("resourceSpans")):
        known = attributes_of(_dict(resource.get("resource")).get("attributes"))
        kept = {name: known[name] for name in KEPT_OF_RESOURCE if name in known}
        for scoped in _dicts(resource.get("scopeSpans")):
            scope = {name: value for name in ("name", "version") if isinstance(value := _dict(scoped.get("scope")).get(name), str)}
            for span in _dicts(scoped.get("spans")):
                exported = _span(span, kept, scope)
                if exported is None:
                    strangers += 1
                else:
                    found.append(exported)
                if len(found) + strangers > SPANS_IN_REQUEST_MAX:
                    raise ProtocolError(f"the request has more than {SPANS_IN_REQUEST_MAX} spans", 413)
    return found, strangers


def _span(span: dict[str, Any], resource: dict[str, Any], scope: dict[str, str]) -> Exported | None:
    attributes = attributes_of(span.get("attributes"))
    run_id = attributes.get(RUN)
    if not isinstance(run_id, str) or not run_id:
        run_id = run_of_trace_id(str(span.get("traceId", "")))
    span_id, started_ms, ended_ms = span.get("spanId"), _ms(span.get("startTimeUnixNano")), _ms(span.get("endTimeUnixNano"))
    if run_id is None or not isinstance(span_id, str) or not span_id or started_ms is None or ended_ms is None:
        return None
    status = _dict(span.get("status"))
    kind, code = _number(span.get("kind")), _number(status.get("code"))
    step_id = attributes.get(STEP)
    return Exported(
        run_id=run_id[:64],
        id=span_id[:64].lower(),
        parent_id=str(span.get("parentSpanId") or "")[:64].lower(),
        step_id=step_id if isinstance(step_id, str) else "",
        name=str(span.get("name") or "")[:NAME_CHARS_MAX],
        kind=KINDS[kind] if 0 <= kind < len(KINDS) else KINDS[0],
        status=STATUSES[code] if 0 <= code < len(STATUSES) else "unset",
        message=str(status.get("message") or "")[:NAME_CHARS_MAX],
        attributes=_body(attributes, resource, scope, span.get("events")),
        started_ms=started_ms,
        ended_ms=max(ended_ms, started_ms),
    )


def _body(attributes: dict[str, Any], resource: dict[str, Any], scope: dict[str, str], events: Any) -> Json:
    told: dict[str, Any] = {"span": attributes, "resource": resource, "scope": scope}
    body = canonical({**told, "events": [_event(event) for event in _dicts(events)]})
    if len(body) > ATTRIBUTES_BYTES_MAX:
        body = canonical({**told, "events": [], "cut": "the events are more than is kept of a span"})
    return body


def _event(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": str(event.get("name") or ""),
        "ms": _ms(event.get("timeUnixNano")),
        "attributes": attributes_of(event.get("attributes")),
    }


def attributes_of(pairs: Any) -> dict[str, Any]:
    """OTLP's list of keys with typed values, as an object of JSON values."""
    return {str(pair.get("key")): _value(_dict(pair.get("value"))) for pair in _dicts(pairs)}


def _value(value: dict[str, Any], depth: int = 0) -> Any:
    if depth > 16:
        return None
    for name in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        if name in value:
            return value[name]
    if "intValue" in value:
        return _number(value["intValue"])
    if "arrayValue" in value:
        return [_value(one, depth + 1) for one in _dicts(_dict(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        pairs = _dicts(_dict(value["kvlistValue"]).get("values"))
        return {str(pair.get("key")): _value(_dict(pair.get("value")), depth + 1) for pair in pairs}
    return None


def _ms(nanos: Any) -> int | None:
    number = _number(nanos)
    return number // 1_000_000 if number > 0 else None


def _number(value: Any) -> int:
    """A whole number, which JSON may tell as a text."""
    if isinstance(value, str) and value.removeprefix("-").isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else 0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
