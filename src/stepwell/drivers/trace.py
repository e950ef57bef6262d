"""A call's place in its run's trace, as W3C tells it (inngest-protocol §1.3): headers over HTTP, a context over Connect."""

from __future__ import annotations

from stepwell.protocol.calls import CallRequest
from stepwell.protocol.ids import app_uuid, span_id_of, trace_id_of


def trace_headers(request: CallRequest) -> dict[str, str]:
    """What ties the spans of the app's code to the run's trace."""
    return {
        "traceparent": f"00-{trace_id_of(request.run_id)}-{span_id_of(request.run_id, request.item_id, request.request_id)}-01",
        "tracestate": f"inngest@app={app_uuid(request.app_id)},inngest@fn={request.function_uuid}",
    }
