"""One child process: started, spoken to over its socket, and watched until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any

from stepwell.drivers.actors import ActorHouse
from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.process.surroundings import PLAIN, Surroundings
from stepwell.errors import Superseded
from stepwell.net.frames import FrameConnection, adopt
from stepwell.protocol.actors import ActorKind, ActorMessage, ToActors
from stepwell.protocol.calls import Answer, CallRequest, Lost
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
    FromServer,
    HandedBack,
    Ping,
    Pong,
    Ready,
    Send,
    SendReply,
    decode_from_child,
    encode_frame,
    refusal_of,
)
from stepwell.protocol.registration import refused_answer

PROBLEM_BYTES_MAX = 65_536
LAST_WORDS_S = 1.0
"""How long the socket of a process that has ended is read."""

SendFn = Callable[[Json, str], Awaitable[list[str]]]
"""Stores the events of a child's `app.send`, given the body and a seed (or ""); gives their ids."""

ApiFn = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]
"""Answers a child's request to the server's API, given method, path and body; gives the status and the body."""

_numbers = count(1)
"""For calls and pings alike: a `Pong` names either."""


class CallInHand:
    """A call on its way to a child, in it, or back."""

    __slots__ = ("checkpoint", "future", "id", "received", "request")

    def __init__(self, request: CallRequest, checkpoint: CheckpointFn, future: asyncio.Future[Answer]) -> None:
        self.id, self.request, self.checkpoint, self.future, self.received = next(_numbers), request, checkpoint, future, False

    def answer(self, answer: Answer) -> None:
        """Give the answer; only the first counts."""
        if not self.future.done():
            self.future.set_result(answer)


class ChildProcess:
    """A child. `ready` is its registration, or its failure as `ChildFailed`; `ended` is set when the process is gone."""

    def __init__(
        self,
        *,
        on_send: SendFn,
        on_api: ApiFn,
        on_change: Callable[[], None],
        surroundings: Surroundings = PLAIN,
        house: ActorHouse | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Json] = self._loop.create_future()
        self.ended = asyncio.Event()
        self.how = "was never started"
        self.calls: dict[int, CallInHand] = {}
        self.actors: tuple[ActorKind, ...] = ()
        self._house = house
        self.draining = False
        self.pid = 0
        self.ping: int | None = None
        self._on_send, self._on_api, self._on_change, self._surroundings = on_send, on_api, on_change, surroundings
        self._link = FrameConnection(self._take, self._on_closed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._problem = b""
        self._closed = self._gone = False

    # Life.

    async def start(self, target: str, lock_path: Path | None) -> None:
        """Start the process from this thread, for the kernel's signal at a parent's death is tied to the thread."""
        ours, theirs = socket.socketpair()
        problem_read, problem_write = os.pipe()
        arguments = ["--target", target, "--socket-fd", str(theirs.fileno()), "--problem-fd", str(problem_write)]
        arguments += ["--parent-pid", str(os.getpid())]
        if lock_path is not None:
            arguments += ["--lock-path", str(lock_path)]
        try:
            process = self._surroundings.started(arguments, (theirs.fileno(), problem_write))
        except BaseException:
            ours.close()
            os.close(problem_read)
            raise
        finally:
            theirs.close()
            os.close(problem_write)
        self.pid = process.pid
        self.how = "is alive"
        threading.Thread(target=self._watch, args=(process, problem_read), name=f"child-{self.pid}", daemon=True).start()
        await adopt(ours, self._link)

    def _watch(self, process: subprocess.Popen[bytes], problem_fd: int) -> None:
        """In a thread of its own: wait for the end. What the child leaves behind in its group goes with it, before its number is free."""
        self._surroundings.be_nice(process.pid)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        os.set_blocking(problem_fd, False)
        with contextlib.suppress(OSError):
            self._problem = os.read(problem_fd, PROBLEM_BYTES_MAX)
        os.close(problem_fd)
        # The loop may be closed already: then nobody asks any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_exit, status)

    def _on_exit(self, status: int) -> None:
        self.how = f"died with signal {-status}" if status < 0 else f"ended with status {status}"
        if self._closed:
            self._end()
        else:
            # What it said last is still to be read; a grandchild that holds the socket's other end may keep it open.
            self._gone = True
            self._loop.call_later(LAST_WORDS_S, self._end)

    def _end(self) -> None:
        """It is gone, and has been heard to the end."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._link.abort()
        for task in self._tasks:
            task.cancel()
        if not self.ready.done():
            text = self._problem.decode("utf-8", "replace") or f"the child process {self.pid} {self.how} before its app was imported"
            self.ready.set_exception(ChildFailed(text))
            self.ready.exception()
        self._lose_all()
        if self._house is not None:
            self._house.gone(self, self.how, taken=self.draining)
        self._on_change()

    def _lose_all(self) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.answer(Lost(reason=f"child {self.pid} {self.how}"))

    def kill(self) -> None:
        """Kill it and its group. `ended` follows."""
        if not self.ended.is_set() and self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def drain(self, deadline_s: float) -> None:
        """Have it take no more calls, and end when those in hand have come to a step's end."""
        self.draining = True
        self._write(Drain(deadline_ms=int(deadline_s * 1000)))

    # Calls.

    @property
    def takes_calls(self) -> bool:
        """Whether a call may be given to it."""
        return self.ready.done() and not self.draining and not self.ended.is_set() and self.answers

    @property
    def answers(self) -> bool:
        """Whether it has answered the last ping that it had time to."""
        return self.ping is None or self.ping > 0

    def give(self, call: CallInHand) -> None:
        """Send a call. Raises `ProtocolError` for one that is too large for a frame."""
        call.received = False
        self._write(Call(call_id=call.id, request=call.request))
        self.calls[call.id] = call

    def abandon(self, call: CallInHand) -> None:
        """Nobody waits for it any more, or another child has it."""
        if self.calls.pop(call.id, None) is not None:
            self._write(Abandon(call_id=call.id))

    def beat(self) -> list[CallInHand]:
        """Ask whether it is there. One that has not answered since the last beat is silent: gives the calls that it has not seen."""
        unseen: list[CallInHand] = []
        if self.ping is not None:
            self.ping = -abs(self.ping)
            unseen = [call for call in self.calls.values() if not call.received]
            for call in unseen:
                self.abandon(call)
        else:
            self.ping = next(_numbers)
            self._write(Ping(seq=self.ping))
        return unseen

    # Actors.

    @property
    def takes_actors(self) -> bool:
        """Whether actors may come to live here; one that does not answer its pings gets none, but keeps those that it has."""
        return self.ready.done() and not self.draining and not self.ended.is_set()

    def tell(self, message: ToActors) -> None:
        """Tell it something about actors. What cannot be sent is not missed: its end tells the rest."""
        self._write(message)

    # The socket.

    def _on_closed(self, error: Exception | None) -> None:
        """It has ended, closed its end while it drains, or said what makes no sense: what is left of it goes."""
        self._closed = True
        if self._gone:
            self._end()
        elif not self.draining or error is not None:
            self.kill()

    def _write(self, message: FromServer) -> None:
        if self._link.is_open:
            self._link.send(encode_frame(message))

    def _take(self, frame: bytes) -> None:
        match decode_from_child(frame):
            case Answered(call_id=call_id, answer=answer):
                call = self.calls.pop(call_id, None)
                if call is not None:
                    call.answer(answer)
                    self._on_change()
            case Checkpointed() as steps:
                self._spawn(self._checkpoint(steps))
            case Pong(seq=seq):
                self._heard(seq)
            case Send() as events:
                self._spawn(self._send(events))
            case ApiCall() as asked:
                self._spawn(self._ask(asked))
            case HandedBack(call_ids=call_ids):
                for call_id in call_ids:
                    call = self.calls.pop(call_id, None)
                    if call is not None:
                        call.answer(Lost(reason=f"child {self.pid} handed it back: it was drained"))
            case ActorMessage() as told:
                if self._house is not None:
                    self._house.take(self, told)
            case Ready(registration=registration, actors=actors):
                if not self.ready.done():
                    self.actors = actors
                    self.ready.set_result(registration)
                    self._on_change()

    def _heard(self, seq: int) -> None:
        call = self.calls.get(seq)
        if call is not None:
            call.received = True
        elif self.ping is not None and abs(self.ping) == seq:
            was_silent = self.ping < 0
            self.ping = None
            if was_silent:
                self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _checkpoint(self, steps: Checkpointed) -> None:
        call = self.calls.get(steps.call_id)
        error = None
        if call is None:
            # Given to another child, or abandoned: this one's word counts no more.
            error = refusal_of(Superseded("the call has been taken from this process"))
        else:
            try:
                await call.checkpoint(steps.checkpoint)
            except asyncio.CancelledError:
                raise
            except BaseException as refused:
                error = refusal_of(refused)
        self._write(CheckpointReply(call_id=steps.call_id, seq=steps.seq, error=error))

    async def _send(self, events: Send) -> None:
        try:
            reply = SendReply(seq=events.seq, ids=tuple(await self._on_send(events.body, events.seed)))
        except Exception as refused:
            reply = SendReply(seq=events.seq, error=refusal_of(refused))
        self._write(reply)

    async def _ask(self, asked: ApiCall) -> None:
        try:
            status, body = await self._on_api(asked.method, asked.path, asked.body)
        except Exception as error:
            refusal = refusal_of(error)
            status, body = refusal.status, refused_answer(refusal.message, refusal.status)
        self._write(ApiReply(seq=asked.seq, status=status, body=body))


class ChildFailed(Exception):
    """The child ended before its app was imported; the message is for the user."""
