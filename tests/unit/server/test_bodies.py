"""Bodies of requests that are no JSON, in whatever way."""

from __future__ import annotations

import pytest

from tests.unit.server.house import House, within

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/cancellations", "/accounts/a/queues/q/messages", "/kv/n/get", "/queues/q/messages"])
@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"keys":' + DEEP + b"}"], ids=["cut", "no UTF-8", "too deep"])
def test_what_is_no_json_is_refused(path: str, body: bytes) -> None:
    """With 400 and a sentence, never as a failure of the server's."""

    async def test(house: House) -> None:
        answer = await house.client.post(path, content=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()

    within(test)
