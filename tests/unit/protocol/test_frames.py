"""Messages between a server and its children: whole after a round trip, and tolerant of a newer other side."""

from __future__ import annotations

import msgspec
import pytest

from stepwell.errors import Conflict, ProtocolError, Superseded
from stepwell.protocol.actors import ActorAnswered, ActorFailure
from stepwell.protocol.calls import Answer, Checkpoint, Failed, Lost, Ops, Returned
from stepwell.protocol.frames import (
    Abandon,
    Answered,
    ApiCall,
    ApiReply,
    Call,
    Checkpointed,
    CheckpointReply,
    Drain,
    FromChild,
    FromServer,
    HandedBack,
    Ping,
    Pong,
    Ready,
    Refusal,
    Send,
    SendReply,
    Unknown,
    decode_from_child,
    decode_from_server,
    encode_frame,
    refusal_of,
)

from .messages import CALL, OPS

ANSWERS: list[Answer] = [
    Ops(ops=OPS, request_version=2, no_retry=True, retry_after_ms=5),
    Returned(data=b"null"),
    Failed(error=b"{}", retriable=False),
    Lost(reason="gone"),
]


@pytest.mark.parametrize(
    "message",
    [
        Call(call_id=1, request=CALL),
        CheckpointReply(call_id=1, seq=2),
        CheckpointReply(call_id=1, seq=2, error=Refusal(message="over", status=409)),
        Abandon(call_id=1),
        Ping(seq=3),
        Drain(deadline_ms=4),
        SendReply(seq=5, ids=("a",)),
        ApiReply(seq=6, status=404, body=b"{}"),
        SendReply(seq=5, error=Refusal(message="no", code="c")),
    ],
)
def test_what_a_server_says(message: FromServer) -> None:
    """A child hears."""
    assert decode_from_server(encode_frame(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(registration=b"{}"),
        *[Answered(call_id=1, answer=answer) for answer in ANSWERS],
        Checkpointed(call_id=1, seq=2, checkpoint=Checkpoint(run_id="r", item_id="i", fence=1, ops=OPS)),
        Pong(seq=3),
        Send(seq=4, body=b"{}", seed="1,x"),
        ApiCall(seq=5, method="POST", path="/invoke/a-b?x=1", body=b"{}"),
        HandedBack(call_ids=(1, 2)),
        ActorAnswered(activation=1, call_id=2, failure=ActorFailure(name="Refused", message="no", properties='{"code":7}')),
    ],
)
def test_what_a_child_says(message: FromChild) -> None:
    """A server hears."""
    assert decode_from_child(encode_frame(message)) == message


def test_a_newer_side_is_understood_as_far_as_it_goes() -> None:
    """Unknown fields pass, unknown messages are told apart, missing fields have defaults."""
    assert decode_from_server(msgspec.msgpack.encode({"type": "Ping", "new": 1})) == Ping()
    assert decode_from_server(msgspec.msgpack.encode({"type": "Sing", "song": 1})) == Unknown("Sing")
    assert decode_from_child(msgspec.msgpack.encode({"type": "Sing"})) == Unknown("Sing")


@pytest.mark.parametrize("frame", [b"", b"\xc1", msgspec.msgpack.encode({"seq": 1}), msgspec.msgpack.encode({"type": "Call"}), b"\x01"])
def test_what_is_no_message(frame: bytes) -> None:
    """Is the other side's fault."""
    with pytest.raises(ProtocolError, match="is no message"):
        decode_from_server(frame)
    with pytest.raises(ProtocolError):
        decode_from_child(msgspec.msgpack.encode({"type": "Ready"}))


def test_refusals_carry_exceptions_over() -> None:
    """A lease that is over, a limit, trouble that passes, and a failure of this side."""
    over = refusal_of(Superseded("over"))
    assert over == Refusal(message="over", status=409) and isinstance(over.exception(), Superseded)
    limit = refusal_of(ProtocolError("too much", status=413, code="state")).exception()
    assert isinstance(limit, ProtocolError) and (str(limit), limit.status, limit.code) == ("too much", 413, "state")
    assert refusal_of(Conflict("again")) == Refusal(message="again", status=503)
    assert refusal_of(ValueError("bug")) == Refusal(message="ValueError: bug", status=500)
