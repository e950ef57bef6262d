"""The bodies of OTLP over HTTP: protobuf or JSON, compressed or not, and the answers in the same form."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from starlette.responses import Response

from stepwell.errors import CallError, ProtocolError
from stepwell.net.content_encoding import decoded
from stepwell.protocol.otlp import Exported, parse_otlp

BODY_BYTES_MAX = 8 * 1024 * 1024
PROTOBUF = "application/x-protobuf"
IDS = ("traceId", "spanId", "parentSpanId")


def read_export(body: bytes, content_type: str, encoding: str) -> tuple[list[Exported], int]:
    """The spans of a request that belong to runs, and how many do not. Raises `ProtocolError`."""
    if encoding:
        try:
            body = decoded(body, encoding, BODY_BYTES_MAX)
        except CallError as error:
            raise ProtocolError(f"the export cannot be read: {error}", 413 if error.code == "output_too_large" else 400) from None
    if len(body) > BODY_BYTES_MAX:
        raise ProtocolError(f"the export has {len(body)} bytes; at most {BODY_BYTES_MAX} are taken", 413)
    return parse_otlp(_from_json(body) if is_json(content_type) else _from_protobuf(body))


def is_json(content_type: str) -> bool:
    """Whether a body of this type is JSON; anything else is taken for protobuf."""
    return "json" in content_type.lower()


def _from_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the export is no JSON: {error}") from None


def _from_protobuf(body: bytes) -> Any:
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise ProtocolError(f"the export is no OTLP protobuf: {error}") from None
    told = MessageToDict(request, use_integers_for_enums=True)
    for resource in told.get("resourceSpans", ()):
        for scoped in resource.get("scopeSpans", ()):
            for span in scoped.get("spans", ()):
                for name in IDS:
                    if name in span:
                        span[name] = _hex(span[name])
    return told


def _hex(text: str) -> str:
    try:
        return base64.b64decode(text).hex()
    except binascii.Error:
        return ""


def export_answer(content_type: str, refused: int, why: str) -> Response:
    """The answer to an export: how many spans were refused, and why."""
    if is_json(content_type):
        told = {"partialSuccess": {"rejectedSpans": str(refused), "errorMessage": why}} if refused else {}
        return Response(msgspec.json.encode(told), media_type="application/json")
    answer = ExportTraceServiceResponse()
    if refused:
        answer.partial_success.rejected_spans = refused
        answer.partial_success.error_message = why
    return Response(answer.SerializeToString(), media_type=PROTOBUF)
