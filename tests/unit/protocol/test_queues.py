"""What a consumer reports of a batch, as it crosses the wire."""

from __future__ import annotations

import pytest

from stepwell.protocol.codec import canonical
from stepwell.protocol.queues import OUTCOME_KEY, Outcome, Retry, decode_outcome, encode_outcome, settled

ERROR = canonical({"message": "no", "name": "ValueError"})


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(),
        Outcome(acks=("a", "b"), retries={"c": None, "d": 0, "e": 500}),
        Outcome(ack_all=True),
        Outcome(retry_all=True, retry_all_delay_ms=0),
        Outcome(error=ERROR),
        Outcome(acks=("a",), retries={"b": 2000}, retry_all=True, retry_all_delay_ms=1000, error=ERROR),
    ],
)
def test_a_report_arrives_as_it_was_sent(outcome: Outcome) -> None:
    """Every part of it; above all the error, without which a failed batch would be acked."""
    assert decode_outcome(encode_outcome(outcome)) == outcome


def test_what_is_no_report_acks_and_a_broken_report_does_not() -> None:
    """An SDK of others returns what it likes; a report of ours that cannot be read has its batch delivered again."""
    for data in (b"null", b"1", b'"x"', b"[]", b"{}", b'{"acks":["a"]}'):
        assert decode_outcome(data) == Outcome()
    assert decode_outcome(canonical({OUTCOME_KEY: {"acks": ["a"], "error": None}})) == Outcome(acks=("a",))
    for told in ({"acks": 1}, None, [], {"retries": {"a": "soon"}}):
        broken = decode_outcome(canonical({OUTCOME_KEY: told}))
        assert settled(broken, ["a"], 7) == {"a": Retry(7)} and b"cannot be read" in (broken.error or b""), told
