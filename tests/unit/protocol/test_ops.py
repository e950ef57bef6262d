"""Ops: what is read of them, what is refused, and how long they let a run wait."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.ops import (
    INVOKE_TIMEOUT_MS,
    OPCODES,
    STEP_OUTPUT_BYTES_MAX,
    WAIT_MAX_MS,
    Op,
    encode_ops,
    opts_of,
    parse_ops,
    says_no_retry,
    sleep_until_ms,
    timeout_ms,
    wait_until_ms,
)

NOW_MS = 1_735_689_600_000
STEP_RUN = {
    "op": "StepRun",
    "id": "abc",
    "name": "charge",
    "displayName": "Charge",
    "opts": {"type": "step.run", "a": 1.0},
    "data": {"ok": True, "n": 1.5},
    "error": None,
    "userland": {"id": "charge", "index": 2},
    "timing": {"a": 1_735_689_600_000_000_000, "b": 1_500_000},
    "metadata": [],
}


def ops(*items: dict[str, Any]) -> tuple[Op, ...]:
    return parse_ops(json.dumps(items).encode())


def test_an_op_whole() -> None:
    """Bodies in canonical form, nanoseconds as milliseconds, an empty list of metadata as none."""
    assert ops(STEP_RUN) == (
        Op(
            op="StepRun",
            id="abc",
            name="charge",
            display_name="Charge",
            opts=b'{"a":1,"type":"step.run"}',
            data=b'{"n":1.5,"ok":true}',
            user_id="charge",
            index=2,
            started_ms=NOW_MS,
            duration_ms=1,
        ),
    )


def test_a_single_object_is_an_op_too() -> None:
    """Old SDKs and durable endpoints answer so."""
    assert parse_ops(b' {"op":"StepPlanned","id":"a"}') == (Op(op="StepPlanned", id="a"),)


def test_nothing_new_is_an_empty_array() -> None:
    """It is no error."""
    assert parse_ops(b"[]") == ()
    assert parse_ops(b" " * 100 + b"[]") == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"null",
        b"[null]",
        b"1",
        b'"x"',
        b"[",
        b"<html>",
        b'[{"id":"a"}]',
        b'[{"op":1,"id":"a"}]',
        b'[{"op":"StepRun","id":1}]',
        b"[" * 9999,
    ],
)
def test_what_is_no_array_of_ops(body: bytes) -> None:
    """Is refused: a null entry and an empty body too."""
    with pytest.raises(ProtocolError):
        parse_ops(body)


@pytest.mark.parametrize("op", ["steprun", "AiGateway", "STEPRUN", "", "Unknown"])
def test_unknown_ops_are_refused(op: str) -> None:
    """Names are matched with their case; the wire says AIGateway."""
    with pytest.raises(ProtocolError, match="unknown op"):
        ops({"op": op, "id": "a"})


@pytest.mark.parametrize("op", sorted(OPCODES))
def test_every_op_is_read_and_written(op: str) -> None:
    """The same after a round trip."""
    first = ops({**STEP_RUN, "op": op, "error": {"name": "E", "message": "m"}})
    assert first[0].op == op
    assert parse_ops(encode_ops(first)) == first


def test_ops_without_an_id() -> None:
    """Only what is no step may have none."""
    assert ops({"op": "None"}, {"op": "RunComplete", "data": 1}) == (Op(op="None"), Op(op="RunComplete", data=b"1"))
    with pytest.raises(ProtocolError, match="without an id"):
        ops({"op": "StepRun", "data": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [("userland", 1), ("userland", {"id": 1, "index": "x"}), ("userland", {"id": None, "index": -1}), ("userland", None), ("timing", "x")],
)
def test_odd_particulars_do_not_matter(field: str, value: Any) -> None:
    """They are for people to look at."""
    (op,) = ops({"op": "StepRun", "id": "a", field: value})
    assert (op.user_id, op.index, op.started_ms, op.duration_ms) == ("", 0, None, None)


@pytest.mark.parametrize("timing", [{"a": 0, "b": -1}, {"a": "x"}, {"a": 10**40, "b": 10**40}, {}])
def test_odd_times_are_none(timing: dict[str, Any]) -> None:
    """Not guessed at."""
    (op,) = ops({"op": "StepRun", "id": "a", "timing": timing})
    assert (op.started_ms, op.duration_ms) == (None, None)


def test_metadata_is_kept() -> None:
    """Where there is some."""
    (op,) = ops({"op": "StepRun", "id": "a", "metadata": [{"kind": "inngest.ai"}]})
    assert op.metadata == b'[{"kind":"inngest.ai"}]'
    assert parse_ops(encode_ops([op])) == (op,)


@pytest.mark.parametrize("kind", ["StepError", "StepFailed"])
def test_a_step_that_failed_says_how(kind: str) -> None:
    """An error is mandatory, and becomes an object with name and message, all else kept."""
    with pytest.raises(ProtocolError, match="has no error"):
        ops({"op": kind, "id": "a"})
    error = {"name": "E", "message": "m", "stack": None, "cause": {"x": 1.0}}
    assert ops({"op": kind, "id": "a", "error": error})[0].error == b'{"cause":{"x":1},"message":"m","name":"E","stack":null}'
    assert ops({"op": kind, "id": "a", "error": "boom"})[0].error == b'{"message":"boom","name":"Error"}'


def test_the_output_of_a_step_is_bounded() -> None:
    """Four mebibytes; a function's own result, which comes as an op too, only by its answer."""
    (op,) = ops({"op": "StepRun", "id": "a", "data": "x" * (STEP_OUTPUT_BYTES_MAX - 2)})
    assert op.data is not None and len(op.data) == STEP_OUTPUT_BYTES_MAX
    with pytest.raises(ProtocolError, match=r"output of step 'charge' has 4194305 bytes") as caught:
        ops({"op": "StepRun", "id": "a", "displayName": "charge", "data": "x" * (STEP_OUTPUT_BYTES_MAX - 1)})
    assert (caught.value.code, caught.value.status) == ("output_too_large", 413)
    assert ops({"op": "RunComplete", "data": "x" * STEP_OUTPUT_BYTES_MAX})


def test_the_input_of_a_step_is_bounded() -> None:
    """Four mebibytes."""
    with pytest.raises(ProtocolError, match="input of step") as caught:
        ops({"op": "StepPlanned", "id": "a", "opts": {"input": ["x" * STEP_OUTPUT_BYTES_MAX]}})
    assert caught.value.code == "input_too_large"


def test_names_are_bounded() -> None:
    """They are keys and labels."""
    with pytest.raises(ProtocolError, match="more than 4096"):
        ops({"op": "StepRun", "id": "a" * 5000})


def test_labels_are_what_people_know() -> None:
    """The display name, else the user's id, the name, the hash."""
    assert Op(op="StepRun", id="h", name="n", user_id="u", display_name="d").label == "d"
    assert Op(op="StepRun", id="h", name="n", user_id="u").label == "u"
    assert Op(op="StepRun", id="h", name="n").label == "n"
    assert Op(op="StepRun", id="h").label == "h"


@pytest.mark.parametrize(
    ("error", "says"),
    [(None, False), (b'{"message":"noRetry","name":"E"}', False), (b'{"noRetry":true}', True), (b'{"noRetry":false}', False)],
)
def test_an_error_may_ask_for_no_retry(error: bytes | None, says: bool) -> None:
    """By its own key (§5.9)."""
    assert says_no_retry(Op(op="StepError", id="a", error=error)) is says


def test_opts_that_are_no_object_are_empty() -> None:
    """Nobody needs to ask."""
    assert opts_of(Op(op="Sleep")) == opts_of(Op(op="Sleep", opts=b"[1]")) == {}
    assert opts_of(Op(op="Sleep", opts=b'{"a":1}')) == {"a": 1}


@pytest.mark.parametrize(
    ("op", "ms"),
    [
        (Op(op="Sleep", name="2025-01-01T00:00:05.000Z"), 5_000),
        (Op(op="Sleep", name="90s"), 90_000),
        (Op(op="Sleep", name="nap", opts=b'{"duration":"1m30s"}'), 90_000),
        (Op(op="Sleep", name="5s", opts=b'{"duration":""}'), 5_000),
        (Op(op="Sleep", name="5s", opts=b'{"duration":1}'), 5_000),
        (Op(op="Sleep", name="2020-01-01T00:00:00Z"), 0),
        (Op(op="Sleep", name=""), 0),
        (Op(op="Sleep", name="366d"), WAIT_MAX_MS),
    ],
)
def test_sleeps(op: Op, ms: int) -> None:
    """Python's date, JavaScript's duration in the name, Go's in the opts; what is past is now."""
    assert sleep_until_ms(op, NOW_MS) == NOW_MS + ms


@pytest.mark.parametrize("name", ["367d", "2027-01-01T00:00:00Z"])
def test_too_long_a_sleep(name: str) -> None:
    """Has a code of its own, for it fails the run."""
    with pytest.raises(ProtocolError, match="longer than 366d") as caught:
        sleep_until_ms(Op(op="Sleep", id="a", name=name), NOW_MS)
    assert caught.value.code == "timeout_too_long"


def test_a_sleep_that_cannot_be_read() -> None:
    """Is refused without that code."""
    with pytest.raises(ProtocolError, match="step 'nap': a sleep of that length cannot be") as caught:
        sleep_until_ms(Op(op="Sleep", id="a", display_name="nap", name="a good while"), NOW_MS)
    assert caught.value.code is None


@pytest.mark.parametrize(
    ("opts", "ms"), [(b'{"timeout":"1h"}', 3_600_000), (b'{"timeout":""}', 0), (None, 0), (b'{"timeout":"2025-01-01T00:00:05Z"}', 5_000)]
)
def test_waits(opts: bytes | None, ms: int) -> None:
    """No timeout is an immediate one (§5.3)."""
    assert wait_until_ms(Op(op="WaitForEvent", opts=opts), NOW_MS) == NOW_MS + ms


def test_too_long_a_wait() -> None:
    """Fails the run as too long a sleep does."""
    with pytest.raises(ProtocolError) as caught:
        wait_until_ms(Op(op="WaitForEvent", opts=b'{"timeout":"367d"}'), NOW_MS)
    assert caught.value.code == "timeout_too_long"


@pytest.mark.parametrize(
    ("opts", "ms"),
    [(b'{"timeout":"5m"}', 300_000), (b"{}", INVOKE_TIMEOUT_MS), (None, INVOKE_TIMEOUT_MS), (b'{"timeout":null}', INVOKE_TIMEOUT_MS)],
)
def test_invokes_last_a_year_when_they_do_not_say(opts: bytes | None, ms: int) -> None:
    """And waits for a signal (§11.1)."""
    assert timeout_ms(Op(op="InvokeFunction", opts=opts), NOW_MS) == NOW_MS + ms
