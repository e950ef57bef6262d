"""The apps that a server runs in child processes: started together, each reloaded by itself, called by the app's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import watchfiles

from stepwell.drivers.actors import ActorHouse
from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.process import ProcessDriver
from stepwell.drivers.process.child import ApiFn, SendFn
from stepwell.drivers.process.surroundings import PLAIN, Surroundings
from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.calls import Answer, CallRequest, failed
from stepwell.protocol.functions import Registration, parse_registration


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """An app in child processes: its target (`module:name` or `file.py[:name]`), how many they are, what they are started with.

    `name` tells it from the server's other programs, in its lock's file and in what is said of it. `reload` is the folder whose changes
    start it anew; `None`: nothing does.
    """

    target: str
    name: str = ""
    children: int = 2
    surroundings: Surroundings = PLAIN
    reload: Path | None = None
    watched: tuple[str, ...] = (".py",)


def folder_of(target: str) -> Path:
    """The folder that a target's code lies in, as far as its text tells."""
    place = Path(target.partition(":")[0])
    return place.resolve().parent if place.suffix == ".py" else Path.cwd()


class Programs:
    """Some programs and their drivers. `on_registration` takes in what an app tells, `house` knows where actors live."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        locks: Path,
        on_send: SendFn,
        on_api: ApiFn,
        on_registration: Callable[[Registration], object],
        say: Callable[[str], None],
        house: Callable[[], ActorHouse] | None = None,
    ) -> None:
        self._locks, self._on_send, self._on_api, self._house = locks, on_send, on_api, house
        self._on_registration, self._say = on_registration, say
        self._running = {program.name: self._made(program) for program in programs}
        self._by_app: dict[str, ProcessDriver] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._all_started = asyncio.Event()

    def _made(self, program: Program) -> _Running:
        running = _Running(program)
        running.driver = ProcessDriver(
            program.target,
            children=program.children,
            lock_path=self._locks / f"children{f'-{program.name}' if program.name else ''}.lock",
            on_send=self._on_send,
            on_api=self._on_api,
            on_registration=lambda body: self._register(running, body),
            on_problem=self._say,
            surroundings=program.surroundings,
            house=self._house,
            say=self._say,
        )
        return running

    async def start(self) -> None:
        """Start all; they are watched from before that on. Raises `UsageError` where one cannot be imported, or served."""
        for running in self._running.values():
            if running.program.reload is not None:
                self._watching.append(asyncio.create_task(self._watch(running, running.program.reload)))
        starts = [asyncio.ensure_future(running.driver.start()) for running in self._running.values()]
        try:
            await asyncio.gather(*starts)
        finally:
            await asyncio.gather(*starts, return_exceptions=True)
            self._all_started.set()
        for running in self._running.values():
            running.started.set()

    @property
    def watching(self) -> list[asyncio.Task[None]]:
        """What looks for changes of code; one that ends has failed."""
        return self._watching

    @property
    def names(self) -> list[str]:
        """The programs that there are."""
        return list(self._running)

    async def add(self, program: Program) -> None:
        """Start one more, which nothing watches. Raises `UsageError` where it cannot be imported, or served; it is not there then."""
        running = self._made(program)
        try:
            await running.driver.start()
        except BaseException:
            await running.driver.stop(0)
            raise
        running.started.set()
        self._running[program.name] = running

    async def reload(self, name: str) -> bool:
        """Start one anew. Says whether that was done: where its code cannot be imported it goes on as it was, and that is told."""
        return await self._running[name].driver.reload()

    async def remove(self, name: str, deadline_s: float) -> None:
        """Drain one, for so long at most; then it is no longer there."""
        running = self._running.pop(name)
        self._by_app = {app: driver for app, driver in self._by_app.items() if driver is not running.driver}
        await running.driver.stop(deadline_s)

    async def stop(self, deadline_s: float) -> None:
        """Drain all, for so long at most."""
        for watch in self._watching:
            watch.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(running.driver.stop(deadline_s) for running in self._running.values()))

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """Advance a run in its app's children. A run of an app that is not here now fails an attempt: the app may be back by the next.

        Until all programs have started, nobody knows which apps are here: a call waits for that.
        """
        driver = self._by_app.get(request.app_id)
        if driver is None:
            await self._all_started.wait()
            driver = self._by_app.get(request.app_id)
        if driver is None:
            here = ", ".join(sorted(self._by_app)) or "none"
            message = f"The app {request.app_id!r} does not run here; these do: {here}."
            return failed("AppNotFound", message, code="app_not_found")
        return await driver.call(request, checkpoint)

    async def _register(self, running: _Running, body: bytes) -> None:
        """Take in what an app tells. One that may be mended while the server runs is said to be wrong; else the server ends."""
        program = running.program
        try:
            registration = parse_registration(body)
            self._by_app[registration.app_name] = running.driver
            told = self._on_registration(registration)
            if asyncio.iscoroutine(told):
                await told
        except ProtocolError as error:
            if program.reload is None:
                raise UsageError(f"{program.target} cannot be served: {error}") from None
            self._say(f"{program.target} cannot be served as it is: {error}")

    async def _watch(self, running: _Running, folder: Path) -> None:
        """Start a program's children anew whenever its code changes, be it while they start for the first time."""
        program = running.program

        def concerns(change: watchfiles.Change, path: str) -> bool:
            return path.endswith(program.watched) and watchfiles.DefaultFilter()(change, path)

        async for changes in watchfiles.awatch(folder, watch_filter=concerns):
            await running.started.wait()
            names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
            if await running.driver.reload():
                self._say(f"{names} changed: {program.name or 'the app'} runs anew")


class _Running:
    """A program with its driver; `started` is set when its children have been started for the first time."""

    driver: ProcessDriver

    def __init__(self, program: Program) -> None:
        self.program, self.started = program, asyncio.Event()


__all__ = ["Program", "Programs", "Surroundings", "folder_of"]
