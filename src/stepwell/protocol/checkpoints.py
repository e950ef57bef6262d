"""Checkpoint requests of SDKs over HTTP (inngest-protocol §5.12)."""

from __future__ import annotations

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.ops import Op, parse_ops

_NOTHING = msgspec.Raw(b"[]")


class AsyncCheckpoint(msgspec.Struct, frozen=True):
    """Steps of a call that goes on. `item_id` is the opaque reference that the call was made with; generation 0: not told."""

    item_id: str
    generation: int
    ops: tuple[Op, ...]


class _Wire(msgspec.Struct):
    qi_id: str | None = None
    generation_id: int | None = None
    steps: msgspec.Raw = _NOTHING


_decoder = msgspec.json.Decoder(_Wire)


def parse_async_checkpoint(body: bytes) -> AsyncCheckpoint:
    """A checkpoint of an engine-started run. Raises `ProtocolError` naming what is wrong."""
    try:
        wire = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the checkpoint is not what it should be: {error}") from None
    if not wire.qi_id:
        raise ProtocolError("the checkpoint has no qi_id: send the ctx.qi_id of the call that it belongs to")
    return AsyncCheckpoint(wire.qi_id, wire.generation_id or 0, parse_ops(bytes(wire.steps)))
