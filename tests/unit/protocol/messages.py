"""The messages that the golden files hold, and that an unmodified SDK is shown."""

from __future__ import annotations

from stepwell.protocol.calls import CallRequest
from stepwell.protocol.events import Event
from stepwell.protocol.functions import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Registration,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    registration,
)
from stepwell.protocol.ids import function_uuid, step_hash, ulid
from stepwell.protocol.ops import Op

NOW_MS = 1_735_689_600_000
RUN_ID = ulid(NOW_MS, bytes(10))
CHARGE, NAP, REFUND = step_hash("charge"), step_hash("nap"), step_hash("refund")
URL = "http://localhost:3000/api/inngest?fnId=shop-charge&stepId=step"

EVENT = Event(
    internal_id=ulid(NOW_MS, bytes(range(10))),
    id="o-1",
    name="shop/paid",
    data='{"amount":12.5,"customer":"Zoë 😀","note":"a \\"quoted\\" \\\\ text"}'.encode(),
    user=b'{"external_id":"u-1"}',
    ts=NOW_MS,
    v="2024-1",
    meta=b'{"sessions":{"checkout":"c-9"}}',
    received_ms=NOW_MS,
)

CALL = CallRequest(
    run_id=RUN_ID,
    function_id="shop-charge",
    function_uuid=function_uuid("shop-charge"),
    app_id="shop",
    url=URL,
    step_id="step",
    attempt=1,
    max_attempts=5,
    request_version=2,
    stack=(CHARGE, NAP, REFUND),
    disable_immediate_execution=False,
    item_id=f"{RUN_ID}-{REFUND}",
    fence=3,
    request_id=ulid(NOW_MS, b"\xff" * 10),
    events=(EVENT.wire(), b'{"data":{"amount":1e-7},"id":"o-2","name":"shop/paid","ts":1735689600001,"user":{}}'),
    steps={
        CHARGE: b'{"data":{"ok":true,"total":100}}',
        NAP: b"null",
        REFUND: b'{"error":{"message":"no \xe2\x82\xac left","name":"StepError","stack":"line 1\\nline 2"}}',
    },
)

OPS = (
    Op(
        op="StepRun",
        id=CHARGE,
        name="charge",
        display_name="charge",
        opts=b'{"type":"step.run"}',
        data=b'{"ok":true}',
        user_id="charge",
        started_ms=NOW_MS,
        duration_ms=1,
    ),
    Op(op="Sleep", id=NAP, name="2025-01-01T10:00:00.000Z", display_name="nap", user_id="nap", index=1),
    Op(op="StepError", id=REFUND, display_name="refund", error=b'{"message":"boom","name":"MyError"}', user_id="refund"),
)

FUNCTIONS = (
    FunctionConfig(
        id="shop-charge",
        name="charge",
        triggers=(Trigger(event="shop/paid", expression="event.data.amount > 10"),),
        url=URL,
        retries=2,
        concurrency=(Concurrency(limit=5, key="event.data.customer"),),
        throttle=Throttle(limit=10, period_ms=60_000, burst=2, key="event.data.customer"),
        rate_limit=RateLimit(limit=3, period_ms=3_600_000),
        idempotency="event.data.order",
        debounce=Debounce(period_ms=5_000, timeout_ms=90_000),
        priority="event.data.vip ? 120 : 0",
        cancel=(Cancel(event="shop/refunded", where="event.data.id == async.data.id", timeout="1h"),),
        singleton=Singleton(mode="skip", key="event.data.customer"),
        timeouts=Timeouts(start_ms=10_000, finish_ms=60_000),
    ),
    FunctionConfig(
        id="shop-digest",
        name="digest",
        triggers=(Trigger(cron="TZ=Europe/Berlin 0 8 * * 1-5", jitter_ms=30_000), Trigger(event="shop/*")),
        url=URL.replace("charge", "digest"),
        concurrency=(Concurrency(limit=1, per="run"), Concurrency(limit=2, key='"all"', scope="env")),
        batch=Batch(max_size=100, timeout_ms=1_500, key="event.data.customer", where="event.data.amount > 0"),
    ),
)


def shop() -> Registration:
    """An app with every setting."""
    return registration(
        app_name="shop",
        url="http://localhost:3000/api/inngest",
        sdk="stepwell-py:v1",
        framework="starlette",
        app_version="7",
        functions=FUNCTIONS,
    )
