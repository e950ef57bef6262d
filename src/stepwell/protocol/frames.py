"""What a server and its child processes say to each other: msgpack maps, each with its message's name as tag.

It knows nothing of sockets and lengths (`net/frames.py` does). Old and new understand each other across a reload: unknown fields
are ignored, missing ones have defaults, and a message that this side does not know decodes to `Unknown`, to be passed over.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from stepwell.errors import Error, ProtocolError, RunPaused, Superseded
from stepwell.protocol.actors import ActorKind, FromActors, ToActors
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint
from stepwell.protocol.codec import Json

SUPERSEDED_STATUS = 409
"""The status of a refusal that says that the call's lease is over (§5.12)."""

PAUSED_STATUS = 423
"""The status that says that a checkpoint's steps are saved, and that its call is to end with them."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """What every message is."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something asked for was not done. Status 409: the call's lease is over; 423: its run is paused; 503: ask again later."""

    message: str
    status: int = 400
    code: str | None = None

    def exception(self) -> BaseException:
        """What to raise on the side that asked."""
        if self.status == SUPERSEDED_STATUS:
            return Superseded(self.message)
        if self.status == PAUSED_STATUS:
            return RunPaused(self.message)
        return ProtocolError(self.message, status=self.status, code=self.code)


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that tells of an exception; what is no error of ours is a failure of this side (500)."""
    match error:
        case Superseded():
            return Refusal(message=str(error), status=SUPERSEDED_STATUS)
        case RunPaused():
            return Refusal(message=str(error), status=PAUSED_STATUS)
        case ProtocolError():
            return Refusal(message=str(error), status=error.status, code=error.code)
        case Error():
            return Refusal(message=str(error), status=503)
        case _:
            return Refusal(message=f"{type(error).__name__}: {error}", status=500)


# From the server to a child.


class Call(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Advance a run. `call_id` names this call on this connection."""

    call_id: int
    request: CallRequest


class CheckpointReply(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A checkpoint is durable (`error` is `None`), or was refused."""

    call_id: int
    seq: int
    error: Refusal | None = None


class Abandon(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Nobody waits for this call any more; its coroutine may go."""

    call_id: int


class Ping(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Are you there? Answered at once with a `Pong` of the same `seq`."""

    seq: int = 0


class Drain(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Take no more calls, finish or hand back those in hand within the time, then close the connection."""

    deadline_ms: int = 0


class SendReply(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The events of a `Send` are durable, and these are their ids; or they were refused, those of `ids` excepted."""

    seq: int
    ids: tuple[str, ...] = ()
    error: Refusal | None = None


class ApiReply(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to an `ApiCall`: its HTTP status and body."""

    seq: int
    status: int
    body: bytes = b""


# From a child to the server.


class Ready(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The app is imported; `registration` is its register body (§3.1), `actors` are its kinds of actors."""

    registration: Json
    actors: tuple[ActorKind, ...] = ()


class Answered(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A call's answer."""

    call_id: int
    answer: Answer


class Checkpointed(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Steps of a call that goes on when a `CheckpointReply` of the same `seq` says that they are durable."""

    call_id: int
    seq: int
    checkpoint: Checkpoint


class Pong(Message, frozen=True, kw_only=True, omit_defaults=True):
    """I am here."""

    seq: int = 0


class Send(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Events to store: `body` as for the event API, `seed` its header for deterministic ids (§2.4), "" for none."""

    seq: int
    body: Json
    seed: str = ""


class ApiCall(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A request of the app's to the server's API, which the child may make without a key: `path` with its query."""

    seq: int
    method: str
    path: str
    body: bytes = b""


class HandedBack(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Calls that the child gives up without an answer while it drains: lost, to be made elsewhere at once."""

    call_ids: tuple[int, ...] = ()


class Unknown(msgspec.Struct, frozen=True):
    """A message of a newer other side."""

    type: str


FromServer = Call | CheckpointReply | Abandon | Ping | Drain | SendReply | ApiReply | ToActors
FromChild = Ready | Answered | Checkpointed | Pong | Send | ApiCall | HandedBack | FromActors


class _Tag(msgspec.Struct):
    type: str


_encoder = msgspec.msgpack.Encoder()
_from_server: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)
_from_child: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)
_tag = msgspec.msgpack.Decoder(_Tag)
_SERVER_NAMES = frozenset(kind.__name__ for kind in get_args(FromServer))
_CHILD_NAMES = frozenset(kind.__name__ for kind in get_args(FromChild))


def encode_frame(message: FromServer | FromChild) -> bytes:
    """The message's bytes, without their length."""
    return _encoder.encode(message)


def decode_from_server(frame: bytes) -> FromServer | Unknown:
    """A message as a child takes it. Raises `ProtocolError` for what is none."""
    try:
        return _from_server.decode(frame)
    except msgspec.DecodeError as error:
        return _passed_over(frame, _SERVER_NAMES, error)


def decode_from_child(frame: bytes) -> FromChild | Unknown:
    """A message as the server takes it. Raises `ProtocolError` for what is none."""
    try:
        return _from_child.decode(frame)
    except msgspec.DecodeError as error:
        return _passed_over(frame, _CHILD_NAMES, error)


def _passed_over(frame: bytes, known: frozenset[str], error: Exception) -> Unknown:
    """A message whose name is not known; a known one that does not decode is the other side's fault."""
    try:
        name: Any = _tag.decode(frame).type
    except msgspec.DecodeError:
        name = None
    if name is None or name in known:
        raise ProtocolError(f"a frame of {len(frame)} bytes is no message ({name or 'without a name'}): {error}") from None
    return Unknown(name)
