"""Whole numbers that an app would change before it verifies a signature."""

from __future__ import annotations

import asyncio

from stepwell.drivers.http import HttpDriver
from stepwell.net.http_client import Pool
from stepwell.protocol.calls import CallRequest, Checkpoint, Failed


def test_a_signed_call_with_a_number_beyond_doubles_is_refused_with_a_sentence() -> None:
    """It names the number and the fix; an unsigned call is sent as it is (and here finds nobody)."""

    async def unused(checkpoint: Checkpoint) -> None:
        raise AssertionError

    async def main() -> None:
        request = CallRequest(
            run_id="r", function_id="a-f", function_uuid="u", app_id="a", url="http://127.0.0.1:9/x", step_id="step", attempt=0,
            max_attempts=1, request_version=-1, stack=(), disable_immediate_execution=False, item_id="i", fence=1, request_id="q",
            events=(b'{"data":{"n":9007199254740993},"name":"x"}',), steps={},
        )  # fmt: skip
        async with Pool() as pool:
            signed = await HttpDriver(pool, kind="cloud", signing_keys=lambda: ("signkey-test-12ab",)).call(request, unused)
            plain = await HttpDriver(pool).call(request, unused)
        assert isinstance(signed, Failed) and not signed.retriable and b"9007199254740993" in signed.error and b"string" in signed.error
        assert isinstance(plain, Failed) and plain.retriable

    asyncio.run(main())
