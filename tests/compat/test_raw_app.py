"""The app that measurements use is a good citizen of the protocol: its runs end, with as many calls as they should take."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.processes import Server
from tests.support.raw_app import RawApp

pytestmark = pytest.mark.compat

CALLS = {
    "none": {"done": 1},
    "one": {"step": 1, "done": 1},
    "five": {"step": 5, "done": 1},
    "ten": {"plan": 1, "step": 10, "done": 1},
}


def test_its_runs_end(tmp_path: Path) -> None:
    """Registered by itself, called by a real server."""

    async def main() -> None:
        app = RawApp()
        await app.start()
        server = await asyncio.to_thread(Server, tmp_path, "--no-poll")
        try:
            assert (await app.register(server.url))["ok"] is True
            for name, calls in CALLS.items():
                app.counts.clear()
                event_id = await asyncio.to_thread(server.send, f"raw/{name}")
                trace = await asyncio.to_thread(lambda id=event_id: server.ended(server.run_of(id)))
                assert (trace["run"]["status"], trace["run"]["output"]) == ("completed", "done")
                assert app.counts == calls, name
        finally:
            server.kill()
            await app.stop()

    asyncio.run(main())
