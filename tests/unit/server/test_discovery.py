"""Looking for apps on this machine, and trying named ones until they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from stepwell.errors import CallError
from stepwell.net.http_client import Pool
from stepwell.server import discovery
from stepwell.server.auth import Keys
from stepwell.server.discovery import Discovery
from tests.support.processes import free_port
from tests.support.scripted_app import PATH, ScriptedApp
from tests.unit.server.house import House, within


class Recorder(Discovery):
    """Syncs nothing; notes what it was to sync, and fails as often as it is told."""

    def __init__(self, house: House, pool: Pool, failures: int = 0) -> None:
        self.said: list[str] = []
        super().__init__(house.node, house.server.sdk_api, pool, kind="dev", keys=Keys(), say=self.said.append)
        self.asked: list[str] = []
        self._failures = failures

    async def _sync(self, url: str) -> None:
        self.asked.append(url)
        if len(self.asked) <= self._failures:
            raise CallError("not yet")


@pytest.fixture
def app() -> Iterator[ScriptedApp]:
    """An app at a port."""
    made = ScriptedApp("shop", lambda call: (200, {}, None))
    yield made
    made.stop()


async def when(condition: object, *, within_s: float = 10.0) -> None:
    """Wait for a condition."""
    assert callable(condition)
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def test_an_app_at_a_usual_port_is_synced_once(app: ScriptedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the ports are looked at; it may tell another URL than the one it was found at."""
    port = int(app.url.split(":")[2].split("/")[0])
    looks: list[int] = []

    async def is_open(asked: int) -> bool:
        looks.append(asked)
        return asked == port

    monkeypatch.setattr(discovery, "PORTS", (port, free_port()))
    monkeypatch.setattr(discovery, "LOOK_S", 0.01)
    monkeypatch.setattr(discovery, "_is_open", is_open)
    monkeypatch.delenv("PORT", raising=False)

    async def test(house: House) -> None:
        async with Pool(environ={}) as pool:
            found = Recorder(house, pool)
            watching = asyncio.create_task(found.watch((), poll_s=None, discover=True))
            await when(lambda: len(looks) >= 8)
            watching.cancel()
            assert f"http://localhost:{port}{PATH}" in found.asked and len(found.asked) == len(set(found.asked))

    within(test)


def test_a_named_url_is_tried_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps it away is said once; what was removed is tried no more."""
    monkeypatch.setattr(discovery, "AGAIN_S", (0.001, 0.002))

    async def test(house: House) -> None:
        async with Pool(environ={}) as pool:
            named = Recorder(house, pool, failures=3)
            watching = asyncio.create_task(named.watch(("http://x/",), poll_s=None, discover=False))
            await when(lambda: len(named.asked) == 4)
            await when(lambda: named.contacts["http://x/"].error is None)
            assert named.said == ["http://x/ could not be synced: not yet", "http://x/ is synced"]
            named._failures = 1000
            with pytest.raises(CallError):
                await named.add("http://y/")
            await when(lambda: named.asked.count("http://y/") >= 3)
            async with named.removing("http://y/"):
                assert "http://y/" not in named.contacts
            asked = named.asked.count("http://y/")
            with pytest.raises(CallError):
                await named.add("http://z/")
            await when(lambda: named.asked.count("http://z/") >= 3)
            assert named.asked.count("http://y/") == asked
            watching.cancel()

    within(test)


def test_polling_asks_the_apps_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those over HTTP, again and again, and no archived one."""
    from stepwell.engine.inputs import AppRemoved, AppSynced
    from stepwell.protocol.functions import registration

    async def test(house: House) -> None:
        for name in ("a", "b"):
            await house.node.submit(AppSynced(registration(app_name=name, url=f"http://{name}/", sdk="", functions=()), "http"))
        await house.node.submit(AppRemoved("b"))
        async with Pool(environ={}) as pool:
            polled = Recorder(house, pool)
            watching = asyncio.create_task(polled.watch((), poll_s=0.005, discover=False))
            await when(lambda: len(polled.asked) >= 3)
            watching.cancel()
            assert set(polled.asked) == {"http://a/"}

    within(test)


def test_a_removal_waits_for_the_sync_that_is_under_way() -> None:
    """Which would bring the app back; and a poll whose turn comes after it does not ask any more."""
    from stepwell.engine.inputs import AppRemoved, AppSynced
    from stepwell.protocol.functions import registration

    async def test(house: House) -> None:
        answered = asyncio.Event()
        told = AppSynced(registration(app_name="a", url="http://a/", sdk="", functions=()), "http")

        class Slow(Recorder):
            async def _sync(self, url: str) -> None:
                self.asked.append(url)
                await answered.wait()
                await house.node.submit(told)

        await house.node.submit(told)
        async with Pool(environ={}) as pool:
            polled = Slow(house, pool)
            watching = asyncio.create_task(polled.watch((), poll_s=0.001, discover=False))
            await when(lambda: polled.asked)

            async def remove() -> None:
                async with polled.removing("http://a/"):
                    await house.node.submit(AppRemoved("a"))

            removing = asyncio.create_task(remove())
            waiting = asyncio.create_task(polled._try("http://a/", lambda url: url in polled._polled()))
            await asyncio.sleep(0)
            answered.set()
            await removing
            assert await waiting is False and polled.asked == ["http://a/"]
            assert house.node.registry.apps["a"].archived
            watching.cancel()

    within(test)
