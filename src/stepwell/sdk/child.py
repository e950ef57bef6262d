"""The main of a child process: `python -m stepwell.sdk.child --target file.py:app --socket-fd N …`, started by the process driver.

It imports the app, tells the server what is in it, and advances runs that the server sends over the socket. A coroutine waits at each
checkpoint for the server's word that the step is durable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import socket
import sys
import time
from itertools import count

from stepwell.errors import StoreUnavailable, UsageError
from stepwell.net.frames import FrameConnection, adopt
from stepwell.protocol.actors import ActorAsked, ActorFailed, ActorKind, ActorMessage, ActorReturned
from stepwell.protocol.calls import Checkpoint, Lost
from stepwell.protocol.codec import Json
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
    HandedBack,
    Ping,
    Pong,
    Ready,
    Refusal,
    Send,
    SendReply,
    decode_from_server,
    encode_frame,
)
from stepwell.protocol.registration import encode_registration
from stepwell.sdk.actors.activation import settled
from stepwell.sdk.actors.hosting import Hosting
from stepwell.sdk.app import App
from stepwell.sdk.lifeline import die_with, hold_lock, keep_from_forks, watch_socket
from stepwell.sdk.remote import Api
from stepwell.sdk.replay import Executor
from stepwell.sdk.target import load_app

EXIT_PROBLEM = 3
"""The app could not be imported; the sentence went to the problem pipe."""
EXIT_PARENT_GONE = 1


class Child(Api):
    """The app at the server's socket. As `app._engine` it is how the app reaches the server as well."""

    def __init__(self, app: App) -> None:
        self.loop = asyncio.get_running_loop()
        self.finished = asyncio.Event()
        self._app, self._executor = app, Executor(app)
        self._link = FrameConnection(self._take, self._on_closed)
        self._calls: dict[int, asyncio.Task[None] | None] = {}
        self._checkpoints: dict[tuple[int, int], asyncio.Future[Refusal | None]] = {}
        self._sends: dict[int, asyncio.Future[SendReply]] = {}
        self._questions: dict[int, asyncio.Future[ApiReply]] = {}
        self._actor_calls: dict[int, asyncio.Future[ActorReturned]] = {}
        kinds = {kind.id: kind for kind in app.actors.values()}
        self._hosting = Hosting(kinds, self._write, now_ms=lambda: time.time_ns() // 10**6, on_less=self._end_if_idle)
        self._seq = count(1)
        self._draining = False

    # The socket.

    async def connect(self, sock: socket.socket) -> None:
        """Take the socket, and tell what the app is."""
        await adopt(sock, self._link)
        actors = tuple(ActorKind(kind.id, kind.sql) for kind in self._app.actors.values())
        self._write(Ready(registration=encode_registration(self._app.registration()), actors=actors))

    def _on_closed(self, error: Exception | None) -> None:
        """Without the server there is nothing to do."""
        if not self.finished.is_set():
            os._exit(EXIT_PARENT_GONE)

    def _write(self, message: FromChild) -> None:
        if self._link.is_open:
            self._link.send(encode_frame(message))

    def _take(self, frame: bytes) -> None:
        match decode_from_server(frame):
            case Call() as call:
                # Told before it is begun, and begun only when that is on its way: the server knows what a silent child has in hand.
                self._calls[call.call_id] = None
                self._write(Pong(seq=call.call_id))
                self.loop.call_soon(self.loop.call_soon, self._begin, call)
            case CheckpointReply(call_id=call_id, seq=seq, error=refusal):
                waiting = self._checkpoints.pop((call_id, seq), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(refusal)
            case SendReply() as reply:
                sent = self._sends.pop(reply.seq, None)
                if sent is not None and not sent.done():
                    sent.set_result(reply)
            case ApiReply() as answer:
                asked = self._questions.pop(answer.seq, None)
                if asked is not None and not asked.done():
                    asked.set_result(answer)
            case ActorReturned() as returned:
                called = self._actor_calls.pop(returned.seq, None)
                if called is not None and not called.done():
                    called.set_result(returned)
            case ActorMessage() as told:
                self._hosting.take(told)
            case Ping(seq=seq):
                self._write(Pong(seq=seq))
            case Abandon(call_id=call_id):
                task = self._calls.pop(call_id, None)
                if task is not None:
                    task.cancel()
            case Drain():
                self._draining = True
                self._executor.drain()
                self._hosting.drain()
                self._end_if_idle()

    # Calls.

    def _begin(self, call: Call) -> None:
        if call.call_id in self._calls:
            self._calls[call.call_id] = self.loop.create_task(self._call(call))

    async def _call(self, call: Call) -> None:
        async def checkpoint(steps: Checkpoint) -> None:
            seq = next(self._seq)
            future = self._checkpoints[call.call_id, seq] = self.loop.create_future()
            self._write(Checkpointed(call_id=call.call_id, seq=seq, checkpoint=steps))
            refusal = await future
            if refusal is not None:
                raise refusal.exception()

        try:
            answer = await self._executor.call(call.request, checkpoint)
            if self._draining and isinstance(answer, Lost):
                self._write(HandedBack(call_ids=(call.call_id,)))
            else:
                self._write(Answered(call_id=call.call_id, answer=answer))
        finally:
            self._calls.pop(call.call_id, None)
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._draining and not self._calls and not self._hosting:
            self.finished.set()

    async def close(self) -> None:
        """Take the coroutines down and close the socket, once all that was said is on its way."""
        await self._executor.close()
        await self._hosting.close()
        self._link.close()
        await self._link.wait_closed()

    # What the app asks of the server.

    async def send(self, events_body: Json) -> list[str]:
        """Store events through the server. Raises what the server refused them with."""
        seq = next(self._seq)
        future = self._sends[seq] = self.loop.create_future()
        if not self._link.is_open:
            raise StoreUnavailable("the connection to the server is closed")
        self._write(Send(seq=seq, body=events_body))
        reply = await future
        if reply.error is not None:
            raise reply.error.exception()
        return list(reply.ids)

    async def call_actor(self, kind: str, name: str, method: str, args: bytes, chain: tuple[str, ...]) -> bytes:
        """Call an actor, through the server, which knows where it lives."""
        seq = next(self._seq)
        future = self._actor_calls[seq] = self.loop.create_future()
        if not self._link.is_open:
            raise StoreUnavailable("the connection to the server is closed")
        self._write(ActorAsked(seq=seq, kind=kind, name=name, method=method, args=args, chain=chain))
        try:
            returned = await future
        finally:
            self._actor_calls.pop(seq, None)
        if returned.failure is not None:
            raise ActorFailed(returned.failure)
        return bytes(returned.result)

    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        """One request to the server's API, through the socket, which never takes it twice."""
        await settled()
        seq = next(self._seq)
        future = self._questions[seq] = self.loop.create_future()
        if not self._link.is_open:
            raise StoreUnavailable("the connection to the server is closed")
        self._write(ApiCall(seq=seq, method=method, path=path, body=body))
        answer = await future
        return answer.status, answer.body


async def run(app: App, connection: socket.socket) -> None:
    """Serve the app until the server has drained this process. Work of its own that ends sooner has failed, and this with it."""
    child = Child(app)
    await child.connect(connection)
    app._engine = child
    if app._background is not None:
        await app._background(child.finished)
        if not child.finished.is_set():
            raise RuntimeError(f"the background work of {app!r} has ended before its process was told to end")
    await child.finished.wait()
    app._engine = None
    await child.close()


def main(arguments: list[str] | None = None) -> int:
    """Import the app and serve it. The exit status says how it ended."""
    parser = argparse.ArgumentParser(prog="stepwell.sdk.child")
    parser.add_argument("--target", required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--problem-fd", type=int, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--lock-path")
    told = parser.parse_args(arguments)
    die_with(told.parent_pid)
    faulthandler.enable()
    for fd in (told.socket_fd, told.problem_fd):
        os.set_inheritable(fd, False)
    try:
        watched = os.dup(told.socket_fd)
        kept = [told.socket_fd, watched] if told.lock_path is None else [told.socket_fd, watched, hold_lock(told.lock_path)]
        keep_from_forks(*kept)
        watch_socket(watched)
        app = load_app(told.target)
        app.registration()
    except UsageError as error:
        with contextlib.suppress(OSError):
            os.write(told.problem_fd, str(error).encode("utf-8", "replace")[-60_000:])
        return EXIT_PROBLEM
    os.close(told.problem_fd)
    connection = socket.socket(fileno=told.socket_fd)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(app, connection))
    return 0


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    sys.stdout.flush()
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of plain steps may still run; they must not keep the process.
    os._exit(status)
