"""What we write is taken by the unmodified Python SDK of Inngest: its own verification, canonical form and models."""

from __future__ import annotations

import json
from pathlib import Path

import jcs
import msgspec
import pytest

from stepwell.protocol.calls import encode_call
from stepwell.protocol.codec import first_unsafe_integer
from stepwell.protocol.functions import FunctionConfig, parse_registration
from stepwell.protocol.ids import step_hash
from stepwell.protocol.signatures import bearer_hash, is_authorized, sign, split_key, verify

from .messages import CALL, CHARGE, EVENT, NAP, REFUND

net = pytest.importorskip("inngest._internal.net")
server_lib = pytest.importorskip("inngest._internal.server_lib")
step_lib = pytest.importorskip("inngest._internal.step_lib")
transforms = pytest.importorskip("inngest._internal.transforms")

KEY, OTHER = "signkey-test-12ab34cd", "signkey-prod-99"
GOLDEN = Path(__file__).parent / "golden"
CALLS = sorted(path.name for path in GOLDEN.glob("call*.json"))


def checked(body: bytes, signature: str, key: str, fallback: str | None = None) -> object:
    return net.validate_request_sig(
        body=body,
        headers={"x-inngest-signature": signature},
        mode=server_lib.ServerKind.CLOUD,
        signing_key=key,
        signing_key_fallback=fallback,
    )


@pytest.mark.parametrize("name", CALLS)
def test_a_signed_call_is_accepted(name: str) -> None:
    """By the SDK's own verification; with another key, or a changed body, it is not."""
    body = (GOLDEN / name).read_bytes().removesuffix(b"\n")
    signature = sign(body, KEY, 1_735_689_600)
    assert checked(body, signature, KEY) == KEY
    assert checked(body, signature, OTHER, KEY) == KEY
    assert isinstance(checked(body, signature, OTHER), Exception)
    assert isinstance(checked(body.replace(b'"attempt":1', b'"attempt":2'), signature, KEY), Exception)


@pytest.mark.parametrize("name", CALLS)
def test_the_sdk_s_canonical_form_of_a_call_is_ours(name: str) -> None:
    """Byte for byte, so that an SDK which canonicalises what it parsed verifies the same."""
    body = (GOLDEN / name).read_bytes().removesuffix(b"\n")
    assert transforms.canonicalize(body) == body
    assert jcs.canonicalize(json.loads(body)) == body


@pytest.mark.parametrize("number", [2**53 - 1, 2**53 + 1, -(2**53) - 1, 10**16, 10**20, 10**21, 10**21 + 1, 123456789012345678901234567890])
def test_whole_numbers_beyond_a_double_are_known_before_a_signature_fails(number: int) -> None:
    """We keep them as they came; the SDK, which canonicalises before it verifies, would change just those that we name."""
    memo = b'{"data":%d}' % number
    body = encode_call(msgspec.structs.replace(CALL, steps={CHARGE: memo}, stack=(CHARGE,)))
    assert (checked(body, sign(body, KEY, 1), KEY) == KEY) is (first_unsafe_integer(memo) is None)


def test_the_sdk_s_signatures_are_accepted() -> None:
    """Of its answers, and of requests as its test helper signs them."""
    body = b'{"a": 1.5}'
    assert verify(body, net.sign_response(body, KEY, 1_735_689_600), KEY, 1_735_689_600)
    assert net.sign_request(encode_call(CALL), KEY, 1_735_689_600) == sign(encode_call(CALL), KEY, 1_735_689_600)


def test_the_sdk_s_bearer_is_accepted() -> None:
    """It leaves the prefix away."""
    assert split_key(bearer_hash(KEY))[1] == transforms.hash_signing_key(KEY)
    assert is_authorized(f"Bearer {transforms.hash_signing_key(KEY)}", KEY)


def test_the_sdk_reads_a_call() -> None:
    """Its context, events, and every kind of memo."""
    request = server_lib.ServerRequest.from_raw(encode_call(CALL))
    assert not isinstance(request, Exception), request
    assert (request.ctx.run_id, request.ctx.attempt, request.ctx.max_attempts) == (CALL.run_id, 1, 5)
    assert request.ctx.stack.stack == list(CALL.stack)
    assert request.event.model_dump()["data"] == json.loads(EVENT.data)
    assert [event.id for event in request.events] == ["o-1", "o-2"]
    memos = step_lib.StepMemos.from_raw(request.steps)
    assert not isinstance(memos, Exception), memos
    assert memos.pop(CHARGE).data == {"ok": True, "total": 100}
    assert memos.pop(NAP).data is None
    assert memos.pop(REFUND).error.message == "no € left"


def test_the_sdk_reads_a_call_with_use_api() -> None:
    """At the top level, where it looks for it."""
    request = server_lib.ServerRequest.from_raw(encode_call(msgspec.structs.replace(CALL, use_api=True)))
    assert request.use_api is True and request.events == []


def test_step_ids_are_hashed_alike() -> None:
    """Those of users."""
    assert transforms.hash_step_id("charge") == step_hash("charge")


def test_the_sdk_s_register_body_is_read() -> None:
    """As it builds it: lower-case name, nulls stripped, every setting."""
    told = server_lib.SynchronizeRequest(
        app_name="shop",
        deploy_type=server_lib.DeployType.PING,
        framework=server_lib.Framework.FLASK,
        sdk="py:v0.5.19",
        url="http://x/api/inngest",
        v="0.1",
        functions=[
            server_lib.FunctionConfig(
                id="shop-charge",
                name="charge",
                batch_events=None,
                cancel=[server_lib.Cancel(event="shop/refunded", if_exp="true", timeout=60_000)],
                concurrency=[server_lib.Concurrency(limit=5, key="event.data.x")],
                debounce=server_lib.Debounce(period=5_000),
                idempotency=None,
                priority=server_lib.Priority(run="1"),
                rate_limit=server_lib.RateLimit(limit=1, period=60_000),
                singleton=server_lib.Singleton(mode="skip"),
                steps={
                    "step": server_lib.Step(
                        id="step",
                        name="step",
                        retries=server_lib.Retries(attempts=2),
                        runtime=server_lib.Runtime(type="http", url="http://x/api/inngest?fnId=shop-charge&stepId=step"),
                    )
                },
                throttle=server_lib.Throttle(limit=3, period=60_000),
                timeouts=server_lib.Timeouts(start=10_000),
                triggers=[server_lib.TriggerEvent(event="shop/paid"), server_lib.TriggerCron(cron="*/5 * * * *", jitter="30s")],
            )
        ],
    ).to_dict()
    for body in (told, transforms.deep_strip_none(told)):
        registration = parse_registration(json.dumps(body).encode())
        (config,) = registration.functions
        assert (registration.app_name, registration.sdk) == ("shop", "py:v0.5.19")
        assert isinstance(config, FunctionConfig) and config.retries == 2
        assert config.throttle is not None and config.throttle.burst == 1
        assert config.cancel[0].timeout == "1m"
        assert config.triggers[1].jitter_ms == 30_000
