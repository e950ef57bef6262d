"""What apps tell about their runs beside steps: metadata, and spans of their own code (inngest-protocol §7.1)."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import MetadataTold, SpansTold
from stepwell.engine.model import UserSpan
from stepwell.engine.spans import SpansReply
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.ids import is_ulid
from stepwell.protocol.metadata import parse_notes
from stepwell.protocol.otlp import Exported
from stepwell.runtime.node import Node
from stepwell.server.http import Guard, enveloped, read_body
from stepwell.server.otlp import BODY_BYTES_MAX, export_answer, read_export

NOTES_BYTES_MAX = 1024 * 1024
SPANS_AT_ONCE = 200
"""Spans of one input."""


class NoteApi:
    """The routes over a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self, guard: Guard) -> list[BaseRoute]:
        """All of them; `guard` asks for the signing key. Exporters of a dev server's apps show none."""
        return [
            Route("/v1/runs/{run_id}/metadata", guard(self.note), methods=["POST"]),
            Route("/v1/traces/userland", guard(self.export), methods=["POST"]),
            Route("/dev/traces", guard(self.export), methods=["POST"]),
        ]

    async def note(self, request: Request) -> Response:
        """Note something about a run, a step, a try or a span."""
        run_id: str = request.path_params["run_id"]
        if not is_ulid(run_id):
            raise ProtocolError(f"{run_id!r} is no run id", 400)
        notes = parse_notes(await read_body(request.receive, NOTES_BYTES_MAX + 64 * 1024), run_id)
        await self._node.submit(MetadataTold(run_id, notes))
        return enveloped({"run_id": run_id}, self._node.clock.now_ms())

    async def export(self, request: Request) -> Response:
        """Keep the spans of runs; those of no run, and those that are too many, are counted in the answer."""
        content_type = request.headers.get("content-type", "")
        body = await read_body(request.receive, BODY_BYTES_MAX)
        spans, refused = read_export(body, content_type, request.headers.get("content-encoding", ""))
        why = ["belong to no run: they lack the attribute sdk.run.id and a trace id of ours"] if refused else []
        for run_id, some in cuts(spans):
            try:
                reply: SpansReply = await self._node.submit(SpansTold(run_id, tuple(map(row, some))))
            except NotFound as error:
                refused += len(some)
                why.append(str(error))
                continue
            refused += reply.refused
            if reply.refused:
                why.append(f"are more than is kept of run {run_id}")
        return export_answer(content_type, refused, "spans " + "; ".join(dict.fromkeys(why)) if why else "")


def cuts(spans: list[Exported]) -> Iterator[tuple[str, list[Exported]]]:
    """The spans by run, so many at a time."""
    by_run: dict[str, list[Exported]] = {}
    for span in spans:
        by_run.setdefault(span.run_id, []).append(span)
    for run_id, of_run in by_run.items():
        for i in range(0, len(of_run), SPANS_AT_ONCE):
            yield run_id, of_run[i : i + SPANS_AT_ONCE]


def row(span: Exported) -> UserSpan:
    """The row of an exported span."""
    return UserSpan(**{name: getattr(span, name) for name in Exported.__struct_fields__})
