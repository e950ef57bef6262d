"""A worker's WebSocket at the gateway: `websockets`' protocol without its tasks, so that thousands of idle workers cost little.

It makes the handshake, puts fragments together, answers pings and closes; what frames mean is the driver's to know. Compression is
off: it would keep two windows for every worker, and what workers send is small or incompressible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from stepwell.protocol.connect import FRAME_BYTES_MAX, PATH, SUBPROTOCOL

HANDSHAKE_MAX_S = 5.0
CLOSE_MAX_S = 5.0
"""How long the other side may take to close after the close handshake, or to answer it."""
BACKLOG_BYTES_MAX = 64 * 1024 * 1024
"""What waits to be sent to a worker that does not read."""
CLOSE_REASON_BYTES_MAX = 123


class Told(Protocol):
    """What is told of sockets."""

    def opened(self, socket: WorkerSocket) -> None:
        """The handshake is done."""

    def received(self, socket: WorkerSocket, data: bytes | None) -> None:
        """A message; `None` for a text."""

    def closed(self, socket: WorkerSocket, code: int, reason: str) -> None:
        """It is gone; told once, of sockets that were opened."""


class WorkerSocket(asyncio.Protocol):
    """One socket. `refuses` may give a reason not to open it now."""

    def __init__(self, told: Told, refuses: Callable[[], str | None]) -> None:
        self._told, self._refuses = told, refuses
        self._ws = ServerProtocol(subprotocols=[Subprotocol(SUBPROTOCOL)], extensions=[], max_size=FRAME_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] | None = None
        self._text = False
        self._opened = False

    # A link, for the driver.

    def send(self, data: bytes) -> None:
        """Send a message."""
        if self._transport is None or self._ws.state is not OPEN:
            return
        if self._transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            self._transport.abort()
            return
        self._ws.send_binary(data)
        self._write()

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake."""
        if self._ws.state is OPEN:
            self._ws.send_close(code, reason.encode()[:CLOSE_REASON_BYTES_MAX].decode("utf-8", "ignore"))
            self._write()

    def abort(self) -> None:
        """Cut it off."""
        if self._transport is not None:
            self._transport.abort()

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake."""
        self._transport = transport  # type: ignore[assignment]
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_MAX_S, self.abort)

    def data_received(self, data: bytes) -> None:
        """Tell the messages that are whole."""
        self._ws.receive_data(data)
        self._after()

    def eof_received(self) -> None:
        """The worker sends no more."""
        self._ws.receive_eof()
        self._after()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that it is over."""
        self._ws.receive_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._transport = None
        if self._opened:
            self._opened = False
            close = self._ws.close_rcvd
            self._told.closed(self, 1006 if close is None else close.code, "" if close is None else close.reason)

    def _after(self) -> None:
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._write()

    def _answer(self, request: Request) -> None:
        if request.path.partition("?")[0].rstrip("/") != PATH:
            response = self._ws.reject(HTTPStatus.NOT_FOUND, f"workers connect to {PATH}\n")
        elif (refusal := self._refuses()) is not None:
            response = self._ws.reject(HTTPStatus.SERVICE_UNAVAILABLE, f"{refusal}\n")
        else:
            response = self._ws.accept(request)
        self._ws.send_response(response)
        self._write()
        if self._ws.state is OPEN:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._opened = True
            self._told.opened(self)

    def _frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.BINARY | Opcode.TEXT:
                self._text = frame.opcode is Opcode.TEXT
                if frame.fin:
                    self._told.received(self, None if self._text else bytes(frame.data))
                else:
                    self._parts = [bytes(frame.data)]
            case Opcode.CONT if self._parts is not None:
                self._parts.append(bytes(frame.data))
                if frame.fin:
                    data, self._parts = b"".join(self._parts), None
                    self._told.received(self, None if self._text else data)
            case _:
                # Pings are answered and closes completed by the protocol itself.
                pass

    def _write(self) -> None:
        """Send what the protocol has to say; an empty piece is its wish to end the stream."""
        if self._transport is None:
            return
        for piece in self._ws.data_to_send():
            if piece:
                self._transport.write(piece)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if self._ws.state is CLOSED:
            self._transport.close()
        elif self._ws.close_expected() and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CLOSE_MAX_S, self.abort)
