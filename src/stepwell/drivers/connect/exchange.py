"""A call request as Connect's message, and a worker's reply as an answer: what HTTP has in queries, statuses and headers."""

from __future__ import annotations

from stepwell.drivers.trace import trace_headers
from stepwell.protocol.answers import NO_RETRY_HEADER, RETRY_AFTER_HEADER, SDK_HEADER, VERSION_HEADER
from stepwell.protocol.calls import Answer, CallRequest, encode_call, parse_answer
from stepwell.protocol.codec import canonical
from stepwell.protocol.connect import TRACE_CONTEXT, GatewayExecutorRequestData, ReplyStatus, SDKResponse
from stepwell.protocol.ids import app_uuid

_STATUS = {ReplyStatus.NOT_COMPLETED: 206, ReplyStatus.DONE: 200, ReplyStatus.ERROR: 500}


def data_of(request: CallRequest, account_id: str, environment_id: str) -> GatewayExecutorRequestData:
    """The message that asks a worker for a call; the lease is still to be put in."""
    return GatewayExecutorRequestData(
        request_id=request.request_id,
        account_id=account_id,
        env_id=environment_id,
        app_id=app_uuid(request.app_id),
        app_name=request.app_id,
        function_id=request.function_uuid,
        function_slug=request.function_id,
        step_id=request.step_id,
        request_payload=encode_call(request),
        system_trace_ctx=TRACE_CONTEXT,
        user_trace_ctx=canonical(trace_headers(request)),
        run_id=request.run_id,
        job_id=request.item_id,
    )


def answer_of(response: SDKResponse, *, now_ms: int) -> Answer:
    """What a reply says, as an HTTP answer would: statuses, headers and body mean the same (§9.5)."""
    headers = {SDK_HEADER: response.sdk_version}
    if response.request_version:
        headers[VERSION_HEADER] = str(response.request_version)
    if response.no_retry:
        headers[NO_RETRY_HEADER] = "true"
    if response.retry_after:
        headers[RETRY_AFTER_HEADER] = response.retry_after
    try:
        status = _STATUS[ReplyStatus(response.status)]
    except ValueError:
        status = 500
    return parse_answer(status, headers, response.body, now_ms=now_ms)
