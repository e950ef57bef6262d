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
        self._on_registration, self._say = on_registration, say
        self._drivers = [
            (
                program,
                ProcessDriver(
                    program.target,
                    children=program.children,
                    lock_path=locks / f"children{f'-{program.name}' if program.name else ''}.lock",
                    on_send=on_send,
                    on_api=on_api,
                    on_registration=lambda body, nth=nth: self._register(nth, body),  # type: ignore[misc]
                    on_problem=say,
                    surroundings=program.surroundings,
                    house=house,
                    say=say,
                ),
            )
            for nth, program in enumerate(programs)
        ]
        self._by_app: dict[str, ProcessDriver] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._started = [asyncio.Event() for _ in programs]
        self._all_started = asyncio.Event()

    async def start(self) -> None:
        """Start all; they are watched from before that on. Raises `UsageError` where one cannot be imported, or served."""
        for (program, driver), started in zip(self._drivers, self._started, strict=True):
            if program.reload is not None:
                self._watching.append(asyncio.create_task(self._watch(program, driver, program.reload, started)))
        starts = [asyncio.ensure_future(driver.start()) for _, driver in self._drivers]
        try:
            await asyncio.gather(*starts)
        finally:
            await asyncio.gather(*starts, return_exceptions=True)
            self._all_started.set()
        for started in self._started:
            started.set()

    @property
    def watching(self) -> list[asyncio.Task[None]]:
        """What looks for changes of code; one that ends has failed."""
        return self._watching

    async def stop(self, deadline_s: float) -> None:
        """Drain all, for so long at most."""
        for watch in self._watching:
            watch.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await asyncio.gather(*(driver.stop(deadline_s) for _, driver in self._drivers))

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

    async def _register(self, nth: int, body: bytes) -> None:
        """Take in what an app tells. One that may be mended while the server runs is said to be wrong; else the server ends."""
        program, driver = self._drivers[nth]
        try:
            registration = parse_registration(body)
            self._by_app[registration.app_name] = driver
            told = self._on_registration(registration)
            if asyncio.iscoroutine(told):
                await told
        except ProtocolError as error:
            if program.reload is None:
                raise UsageError(f"{program.target} cannot be served: {error}") from None
            self._say(f"{program.target} cannot be served as it is: {error}")

    async def _watch(self, program: Program, driver: ProcessDriver, folder: Path, started: asyncio.Event) -> None:
        """Start a program's children anew whenever its code changes, be it while they start for the first time."""

        def concerns(change: watchfiles.Change, path: str) -> bool:
            return path.endswith(program.watched) and watchfiles.DefaultFilter()(change, path)

        async for changes in watchfiles.awatch(folder, watch_filter=concerns):
            await started.wait()
            names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
            if await driver.reload():
                self._say(f"{names} changed: {program.name or 'the app'} runs anew")


__all__ = ["Program", "Programs", "Surroundings", "folder_of"]
