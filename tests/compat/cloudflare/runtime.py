"""A runtime that scenarios run on: Cloudflare's local one, and what is put in its place."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.compat.cloudflare.configuration import for_miniflare, for_wrangler
from tests.compat.cloudflare.observing import Record, observation, record_of, still_to_come
from tests.compat.cloudflare.scenario import Observation, Scenario
from tests.support.npm import NODE, installed
from tests.support.processes import Process

HERE = Path(__file__).parent
START_S = 60.0
LATE_S = 15.0
"""How much longer than its window a scenario is watched while something is still to come."""
TOGETHER = 24
"""How many scenarios are under way: what they do is next to nothing, but at their beginnings a small machine has to keep up."""


class Runtime(Protocol):
    """Whatever runs Workers."""

    async def observe(self, scenario: Scenario) -> Observation:
        """Run a scenario once, and tell what was seen. Scenarios may run side by side."""


class WorkerRuntime:
    """A process that serves the Worker of these scenarios over HTTP and prints what the Worker prints.

    A subclass says how it is started; the URL is in the line that `ready` matches.
    """

    ready: re.Pattern[str]

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._scenarios = scenarios
        self._records: dict[str, list[Record]] = defaultdict(list)
        self._read = 0
        self._url = ""

    def command(self, directory: Path) -> list[str]:
        """How the process is started; what it needs is written to the directory."""
        raise NotImplementedError

    def awaited(self, scenario: Scenario) -> Observation:
        """What the runtime is waited for to do."""
        return scenario.expected

    async def __aenter__(self) -> WorkerRuntime:
        self._directory = tempfile.TemporaryDirectory(prefix="stepwell-beside-")
        folder = Path(self._directory.name)
        self._process = Process(self.command(folder), folder / "log.txt", cwd=folder)
        # One connection for each: a scenario's request is answered when its steps are done.
        self._http = httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None), trust_env=False)
        try:
            end = time.monotonic() + START_S
            while not self._url:
                assert self._process.popen.poll() is None, f"the runtime ended: {self._process.text()}"
                assert time.monotonic() < end, f"not ready within {START_S:g} s: {self._process.text()}"
                await asyncio.sleep(0.02)
                self._listen()
            # Whoever comes first waits for the Worker's own start.
            await self._http.get(self._url)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._http.aclose()
        self._process.kill()
        self._directory.cleanup()

    def _listen(self) -> None:
        """Take in what was printed since the last time."""
        log = self._process.log.read_bytes()
        whole = log.rfind(b"\n") + 1
        for line in log[self._read : whole].decode(errors="replace").splitlines():
            if (record := record_of(line)) is not None:
                self._records[record["scenario"]].append(record)
            elif not self._url and (found := self.ready.search(line)):
                self._url = found[1]
        self._read = whole

    async def observe(self, scenario: Scenario) -> Observation:
        """Run a scenario: its steps, and then what comes by itself, until its window has passed and nothing more is awaited."""
        begun = time.monotonic()
        response = await self._http.post(f"{self._url}/run/{scenario.id}")
        assert response.status_code == 200, f"{scenario.id}: {response.status_code} {response.text}\n{self._process.text()[-2000:]}"
        answers: list[Any] = json.loads(response.text)
        while (passed_s := time.monotonic() - begun) < scenario.window_s + LATE_S:
            self._listen()
            if passed_s >= scenario.window_s and not still_to_come(self.awaited(scenario), self._records[scenario.id]):
                break
            # A window is the one thing that has to be waited for by the clock: nothing tells that something will not come.
            await asyncio.sleep(0.05)
        self._listen()
        return observation(scenario, answers, self._records[scenario.id])

    async def observe_all(self) -> dict[str, Observation]:
        """All scenarios, many side by side."""
        seen: dict[str, Observation] = {}
        turn = asyncio.Semaphore(TOGETHER)

        async def one_of(scenario: Scenario) -> None:
            async with turn:
                seen[scenario.id] = await self.observe(scenario)

        async with asyncio.TaskGroup() as group:
            # The longest first, lest one of them is alone in the end.
            for one in sorted(self._scenarios, key=lambda one: -one.window_s):
                group.create_task(one_of(one))
        return seen


class MiniflareRuntime(WorkerRuntime):
    """Cloudflare's local runtime, from npm."""

    ready = re.compile(r"^listening at (\S+)")

    def command(self, directory: Path) -> list[str]:
        """Node with the configuration in a file."""
        config = directory / "config.json"
        config.write_text(json.dumps(for_miniflare(self._scenarios)))
        return [NODE, str(installed(HERE, optional=True) / "run.mjs"), str(config)]


class StepwellRuntime(WorkerRuntime):
    """Ours: the Python Worker under `stepwell workers dev`."""

    ready = re.compile(r"Stepwell is ready: (http://\S+)")

    def awaited(self, scenario: Scenario) -> Observation:
        """Where it differs by choice, what it does instead."""
        return scenario.here or scenario.expected

    def command(self, directory: Path) -> list[str]:
        """A project in the directory, which the command is given in."""
        (directory / "wrangler.toml").write_text(for_wrangler(self._scenarios))
        shutil.copy(HERE / "worker" / "entry.py", directory)
        return [sys.executable, "-m", "stepwell", "workers", "dev", "--port", "0"]
