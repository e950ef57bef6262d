"""The engine in one's own process: `async with app.engine(db="stepwell.db")`."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.drivers.gateway import Gateway
from stepwell.drivers.local import LocalDriver
from stepwell.engine.events import wire
from stepwell.engine.inputs import AppSynced, FunctionInvoked, RunCancelled, RunRerun, SignalSent
from stepwell.engine.model import Run, Step
from stepwell.engine.registry import Settings
from stepwell.errors import NotFound, StepError
from stepwell.net.http_client import Pool
from stepwell.protocol.actors import ActorKind, FromActors, ToActors
from stepwell.protocol.codec import decode
from stepwell.protocol.events import parse_event, parse_events
from stepwell.protocol.ids import numbered_ulids
from stepwell.protocol.lifecycle import INVOKED
from stepwell.runtime.bodies import told
from stepwell.runtime.node import Node
from stepwell.runtime.questions import pause_of
from stepwell.sdk.actors.activation import settled
from stepwell.sdk.actors.hosting import Hosting
from stepwell.sdk.app import App
from stepwell.sdk.durations import Duration, duration_ms
from stepwell.sdk.replay import Executor
from stepwell.sdk.way import RunState
from stepwell.store.base import Store
from stepwell.store.memory import MemoryStore
from stepwell.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from stepwell.server.app import Server

DRAIN_S = 10.0


class Engine:
    """A running engine with one app in it."""

    def __init__(self, app: App, node: Node) -> None:
        self._app, self.node = app, node
        self.loop = asyncio.get_running_loop()

    async def send(self, body: bytes) -> list[str]:
        """Store and route the events of a request body; returns their internal ids. Raises `ProtocolError` for a bad one."""
        clock = self.node.clock
        now_ms = clock.now_ms()
        parsed = parse_events(body, received_ms=now_ms, new_id=numbered_ulids(now_ms, clock.entropy(10)))
        ids = await self.node.send(parsed.events, fresh=True) if parsed.events else ()
        if parsed.error is not None:
            raise parsed.error
        return list(ids)

    async def runs_of(self, event_id: str) -> tuple[Run, ...]:
        """The runs that an event started."""
        return await self.node.reader.runs_of_event(event_id, 1000)

    async def run(self, run_id: str) -> Run:
        """A run as it stands. Raises `NotFound`."""
        run = await self.node.reader.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        return run

    async def steps_of(self, run_id: str) -> tuple[Step, ...]:
        """A run's steps."""
        return await self.node.reader.steps(run_id)

    async def ended(self, run_id: str, timeout: Duration = "60s") -> Run:
        """Wait for a run's end. Raises `TimeoutError`."""
        ending = self.node.run_end(run_id)
        run = await self.run(run_id)
        if run.ended_ms is None:
            async with asyncio.timeout(duration_ms(timeout, "timeout") / 1000):
                await ending
            run = await self.run(run_id)
        return run

    async def output(self, run_id: str, timeout: Duration = "60s") -> Any:
        """Wait for a run's end and return its output. Raises `StepError` with the error of a run that failed."""
        run = await self.ended(run_id, timeout)
        value = None if run.output is None else decode(run.output)
        if run.status != "completed":
            error = value if isinstance(value, dict) else {}
            name, message = str(error.get("name", run.status)), str(error.get("message", f"the run was {run.status}"))
            raise StepError(name, message, error.get("stack"))
        return value

    async def cancel(self, run_id: str) -> None:
        """End a run."""
        await self.node.submit(RunCancelled(run_id, "the program asked for it"))

    # What the app asks of its engine (`sdk/way.py`).

    async def start(self, function_id: str, event: bytes) -> str:
        """Start one function; returns the run's id, that of the earlier run for an event's id that was there."""
        node = self.node
        parsed = parse_event(event, received_ms=node.clock.now_ms(), internal_id=node.new_id(), name=INVOKED)
        run_id: str = await node.submit(FunctionInvoked(function_id, parsed))
        return run_id

    async def run_state(self, run_id: str, wait_s: float = 0.0) -> RunState:
        """How a run stands, after so long at most for its end."""
        run = await self.node.ended_run(run_id, wait_s)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        paused = await pause_of(self.node.reader, run)
        return RunState(status=str(run.status), output=run.output, event_ids=run.event_ids, paused=paused)

    async def event(self, event_id: str) -> bytes:
        """A stored event as functions see it. Raises `NotFound`."""
        row = await self.node.reader.event(event_id)
        if row is None:
            raise NotFound(f"there is no event {event_id!r}")
        return wire(row) if row.run_id is None else (await told(self.node.reader, row)).wire()

    async def signal(self, name: str, data: bytes) -> str | None:
        """Send a signal; returns the run that waited for it, or `None`."""
        run_id: str | None = await self.node.submit(SignalSent(name, data))
        return run_id

    async def publish(self, channel: str, topic: str, data: bytes, run_id: str) -> None:
        """Tell data to whoever listens to a topic, in this process."""
        self.node.realtime.publish(channel, (topic,), msgspec.Raw(data), run_id=run_id)

    async def call_actor(self, kind: str, name: str, method: str, args: bytes, chain: tuple[str, ...]) -> bytes:
        """Call an actor, which lives in this process."""
        return await self.node.actors.call(kind, name, method, args, chain)

    async def ask(self, method: str, path: str, body: bytes = b"", *, once: bool = False) -> tuple[int, bytes]:
        """One request to the server's API, which answers in this process, without a port and without keys."""
        from stepwell.server.auth import Keys
        from stepwell.server.inside import asked

        await settled()
        return await asked(self._server, Keys(), method, path, body)

    @cached_property
    def _server(self) -> Server:
        """The server's routes over this node. Imported when they are first asked: most engines of this kind never need them."""
        from stepwell.server.app import Server
        from stepwell.server.auth import Keys

        return Server(self.node, Keys(), "dev")

    async def rerun(self, run_id: str) -> str:
        """Run it again with the same events; returns the new run's id."""
        new_id: str = await self.node.submit(RunRerun(run_id, self.node.new_id()))
        return new_id


class _Here:
    """This process as a place where actors live (`drivers/actors.py`)."""

    takes_actors = True

    def __init__(self, app: App, node: Node) -> None:
        self._node = node
        kinds = {kind.id: kind for kind in app.actors.values()}
        self.hosting = Hosting(kinds, self._emit, now_ms=node.clock.now_ms)
        node.actors.serve([ActorKind(kind.id, kind.sql) for kind in kinds.values()], self._hosts)

    def _hosts(self) -> list[_Here]:
        return [self]

    def _emit(self, message: FromActors) -> None:
        self._node.actors.take(self, message)

    def tell(self, message: ToActors) -> None:
        """Tell it at once."""
        self.hosting.take(message)


@asynccontextmanager
async def engine(
    app: App,
    *,
    db: str | Path | None = None,
    store: Store | None = None,
    retry_interval: Duration | None = None,
    calls_max: int = 256,
) -> AsyncIterator[Engine]:
    """Run the app's functions here, over a database file (`db`), or in memory.

    `retry_interval` replaces the backoff table; `calls_max` is how many calls run at a time. At the end, calls that are out get
    some seconds to come back; what is not done goes on when the file is opened again.
    """
    driver, pool = LocalDriver(), Pool(as_browsers=True)
    executor = Executor(app)
    driver.add(app.name, executor)
    settings = Settings(retry_interval_ms=None if retry_interval is None else duration_ms(retry_interval, "retry_interval"))
    closing: set[asyncio.Task[None]] = set()

    def forget(run_id: str) -> None:
        if executor.holds(run_id):
            task = asyncio.ensure_future(executor.forget(run_id))
            closing.add(task)
            task.add_done_callback(closing.discard)

    node = Node(
        store or (MemoryStore() if db is None else SqliteStore(db)),
        drivers={"local": driver.call},
        settings=settings,
        node_id="embedded",
        calls_max=calls_max,
        on_run_ended=forget,
        perform=Gateway(pool).perform,
    )
    running = Engine(app, node)
    here: _Here | None = None
    files = contextlib.ExitStack()
    await node.start()
    try:
        await node.submit(AppSynced(app.registration(), "local"))
        app._engine = running
        if db is not None:
            node.actors.files = Path(f"{db}.actors")
        elif any(kind.sql for kind in app.actors.values()):
            node.actors.files = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="stepwell-actors-")))
        here = _Here(app, node)
        yield running
    finally:
        app._engine = None
        await node.drain(DRAIN_S)
        await executor.close()
        if here is not None:
            await here.hosting.close()
        files.close()
        await node.stop()
        await pool.close()
