"""The app as a WSGI application and as a Django view: the same handler, the same answers."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import stepwell
from stepwell.protocol.calls import Answer, CallRequest, encode_call, parse_answer
from stepwell.sdk.background import background

from .fake_engine import FakeEngine
from .test_serve import KEY, clean_environment, shop, signed

__all__ = ["clean_environment"]


def ask(
    wsgi: Any, method: str, body: bytes = b"", headers: dict[str, str] | None = None, query: str = "", **environ: Any
) -> tuple[int, dict[str, str], bytes]:
    """One request, as a WSGI server makes it."""
    told: list[Any] = []
    given = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/api",
        "PATH_INFO": "/stepwell",
        "QUERY_STRING": query,
        "SERVER_NAME": "app.test",
        "HTTP_HOST": "app.test",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        **given,
        **environ,
    }
    parts = wsgi(environ, lambda status, headers: told.extend((status, headers)))
    return int(told[0].split()[0]), dict(told[1]), b"".join(parts)


class Wsgi:
    """An executor for the fake engine that makes each call through WSGI, from a thread."""

    def __init__(self, app: stepwell.App) -> None:
        self._wsgi = stepwell.serve_wsgi(app, max_runtime="0s")

    async def call(self, request: CallRequest, checkpoint: object) -> Answer:
        """As the HTTP driver."""
        query = f"fnId={request.function_id}&stepId={request.step_id}"
        status, headers, body = await asyncio.to_thread(ask, self._wsgi, "POST", encode_call(request), None, query)
        return parse_answer(status, headers, body, now_ms=0)

    async def close(self) -> None:
        """Nothing."""


def test_a_run_over_wsgi() -> None:
    """An async function with parallel steps, and a plain one."""
    app = shop()

    @app.function(id="plain")
    def plain(ctx: stepwell.SyncContext) -> str:
        return ctx.step.run("where", lambda: threading.current_thread().name)

    engine = FakeEngine(app, "work", executor=Wsgi(app), checkpoints=False)  # type: ignore[arg-type]
    assert asyncio.run(engine.run()) == [1, 2, 3]
    engine = FakeEngine(app, "plain", executor=Wsgi(app), checkpoints=False)  # type: ignore[arg-type]
    assert asyncio.run(engine.run()).startswith("stepwell")


def test_answers_are_those_of_asgi() -> None:
    """Signatures, the address under which it registers, errors, HEAD."""
    app = shop(signing_key=KEY)
    wsgi = stepwell.serve_wsgi(app)
    status, headers, body = ask(wsgi, "PUT", headers={**signed(b""), "x-inngest-sync-kind": "in_band"})
    assert status == 200 and headers["x-inngest-sync-kind"] == "in_band" and "x-inngest-signature" in headers
    assert b'"url":"http://app.test/api/stepwell"' in body and b'"framework":"wsgi"' in body
    assert ask(wsgi, "GET")[0] == 401
    assert ask(wsgi, "HEAD", headers=signed(b""))[2] == b""
    dev = stepwell.serve_wsgi(shop())
    assert ask(dev, "DELETE")[0] == 405
    assert ask(dev, "POST", b"no json")[0] == 400
    assert ask(dev, "POST", b"", CONTENT_LENGTH=str(2**30))[0] == 413
    assert ask(dev, "POST", b"12", CONTENT_LENGTH="3")[0] == 400
    chunked: dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert ask(dev, "POST", b"no json", **chunked)[0] == 400
    assert ask(dev, "GET", **{"CONTENT_LENGTH": "", "PATH_INFO": "/caf\xc3\xa9"})[0] == 200


def test_requests_share_one_loop() -> None:
    """However many threads ask, functions run in one thread, side by side."""
    app = stepwell.App("shop")
    here: set[str] = set()
    both: list[asyncio.Event] = []

    @app.function(trigger="t/e")
    async def meet(ctx: stepwell.Context) -> None:
        here.add(threading.current_thread().name)
        both.append(asyncio.Event())
        if len(both) == 2:
            for one in both:
                one.set()
        await both[-1].wait() if len(both) == 2 else await both[0].wait()

    wsgi = stepwell.serve_wsgi(app)
    body = encode_call(FakeEngine(app, "meet").request("i", "step", 0))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, wsgi, "POST", body, None, "fnId=shop-meet&stepId=step") for _ in range(2)]
        assert [one.result(10)[0] for one in asked] == [200, 200]
    assert here == {"stepwell-background"}


def test_a_forked_worker_has_a_loop_of_its_own() -> None:
    """A server that forks after loading the app: the parent's thread is not in the child."""
    assert background().run(lambda: asyncio.sleep(0, "here")) == "here"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, background().run(lambda: asyncio.sleep(0, b"there")))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"there"
    os.close(read)
    os.close(write)


def test_waiting_for_the_loop_inside_it_is_refused() -> None:
    """It would never end."""

    async def inside() -> None:
        background().run(lambda: asyncio.sleep(0))

    with pytest.raises(stepwell.UsageError, match="await it instead"):
        background().run(inside)
