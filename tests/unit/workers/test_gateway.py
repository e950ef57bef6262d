"""ASGI and WSGI applications behind `fetch`: FastAPI and Flask as they are, and the edges by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from stepwell.workers.entrypoints import Worker
from stepwell.workers.gateway import asgi, wsgi
from stepwell.workers.gateway.options import Options
from stepwell.workers.web.request import Request, incoming
from stepwell.workers.web.response import FetchResponse
from tests.unit.workers.conftest import Load

FASTAPI = """
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
import asgi
from workers import WorkerEntrypoint
from workers.asgi import env

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await asgi.fetch(app, request, self.env)

app = FastAPI()

class Item(BaseModel):
    name: str
    price: float

@app.get("/hello/{who}")
async def hello(who: str, request: Request):
    return {"message": f"{request.scope['env'].GREETING} {who}", "q": request.query_params.get("q")}

@app.get("/env")
async def of_env(env=env):
    return env.GREETING

@app.post("/items")
async def item(item: Item):
    return item

@app.get("/stream")
async def stream():
    async def parts():
        for n in range(40):
            yield f"{n},"
    return StreamingResponse(parts(), media_type="text/event-stream")
"""

FLASK = """
from flask import Flask, request, jsonify
from workers import wsgi

app = Flask(__name__)

@app.get("/hello/<who>")
def hello(who):
    return jsonify(message=f"{request.environ['workers.env'].GREETING} {who}", q=request.args["q"])

@app.post("/echo")
def echo():
    return request.get_data(), 201, {"x-kind": request.content_type}

Default = wsgi.entrypoint(app)
"""


JSON = {"content-type": "application/json"}


def get(path: str, **options: Any) -> Request:
    return Request(f"https://shop.example{path}", **options)


def test_fastapi(load: Load) -> None:
    """Paths, queries, models, `env`, streams: as FastAPI has them."""

    async def main() -> None:
        worker = Worker(load(FASTAPI), {"GREETING": "Hello"})
        assert await (await worker.call_fetch(get("/hello/J%C3%B6?q=1"))).json() == {"message": "Hello Jö", "q": "1"}
        assert await (await worker.call_fetch(get("/env"))).json() == "Hello"
        made = await worker.call_fetch(get("/items", method="POST", body='{"name":"a","price":1.5}', headers=JSON))
        assert (made.status, await made.json()) == (200, {"name": "a", "price": 1.5})
        assert (await worker.call_fetch(get("/items", method="POST", body="{}", headers=JSON))).status == 422
        streamed = await worker.call_fetch(get("/stream"))
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert await streamed.text() == "".join(f"{n}," for n in range(40))
        await worker.drain()

    asyncio.run(main())


def test_flask(load: Load) -> None:
    """A WSGI application as a default entrypoint."""

    async def main() -> None:
        worker = Worker(load(FLASK), {"GREETING": "Hello"})
        assert await (await worker.call_fetch(get("/hello/J%C3%B6?q=a%20b"))).json() == {"message": "Hello Jö", "q": "a b"}
        echoed = await worker.call_fetch(get("/echo", method="POST", body="text"))
        assert (echoed.status, await echoed.text(), echoed.headers["x-kind"]) == (201, "text", "text/plain;charset=UTF-8")
        await worker.drain()

    asyncio.run(main())


Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def only_http(serve: Callable[[dict[str, Any], Receive, Send], Coroutine[Any, Any, None]]) -> Any:
    """An application without a lifespan."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "no lifespan here"
        await serve(scope, receive, send)

    return app


async def answer(send: Send, *parts: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    for part in parts[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": parts[-1]})


def test_the_scope_and_the_body_of_a_request() -> None:
    """As the specification of ASGI has them."""
    seen: dict[str, Any] = {}

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.update(scope)
        parts = []
        while True:
            message = await receive()
            parts.append(message["body"])
            if not message["more_body"]:
                break
        await answer(send, b"".join(parts), headers=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
        assert await receive() == {"type": "http.disconnect"}

    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def main() -> FetchResponse:
        request = incoming("POST", "http://h.example:81/a%20b/?q=%C3%BC", [("X-A", "ü")], parts())
        return await asgi.fetch(only_http(serve), request, "the env", options=Options(encode_body="manual"))

    response = asyncio.run(main())
    assert asyncio.run(response.text()) == "ab" and response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert response.encode_body == "manual"
    told = {"method": "POST", "scheme": "http", "path": "/a b/", "raw_path": b"/a%20b/", "query_string": b"q=%C3%BC"}
    told |= {"server": ("h.example", 81), "headers": [(b"x-a", b"\xfc")], "env": "the env", "state": {}}
    assert {key: seen[key] for key in told} == told


def test_a_lifespan_around_each_request() -> None:
    """Its state is in the scope; it stops behind the response, behind the last part of a stream."""
    steps: list[str] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert await receive() == {"type": "lifespan.startup"}
            scope["state"]["n"] = 1
            steps.append("start")
            await send({"type": "lifespan.startup.complete"})
            assert await receive() == {"type": "lifespan.shutdown"}
            steps.append("stop")
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert scope["state"] == {"n": 1}
        await answer(send, *([b"a", b"b"] if scope["path"] == "/stream" else [b"whole"]))
        steps.append("end")

    async def main() -> None:
        assert await (await asgi.fetch(app, get("/"), None)).text() == "whole"  # type: ignore[arg-type]
        assert steps == ["start", "end", "stop"]
        streamed = await asgi.fetch(app, get("/stream"), None)  # type: ignore[arg-type]
        assert await streamed.text() == "ab"
        await asyncio.gather(*asgi._streaming)
        assert steps[3:] == ["start", "end", "stop"]

    asyncio.run(main())


def test_applications_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Before a response it is the caller's; behind its beginning it is told, and the stream ends."""

    async def at_once(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raise ValueError("broken")

    async def silent(scope: dict[str, Any], receive: Receive, send: Send) -> None: ...

    async def late(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise ValueError("broken")

    async def never_starts(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        with pytest.raises(ValueError, match="broken"):
            await asgi.fetch(only_http(at_once), get("/"), None)
        with pytest.raises(RuntimeError, match="ended without a response to GET /x"):
            await asgi.fetch(only_http(silent), get("/x"), None)
        assert await (await asgi.fetch(only_http(late), get("/"), None)).text() == "a"
        await asyncio.gather(*asgi._streaming)
        with pytest.raises(RuntimeError, match="no database"):
            await asgi.fetch(never_starts, get("/"), None)  # type: ignore[arg-type]

    asyncio.run(main())
    assert "The application failed after its response had begun" in caplog.text


def test_a_reader_that_is_slow_or_leaves() -> None:
    """The application waits for a slow one; it is told when nobody reads any more."""
    sent, told = [], []

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await receive()
        for n in range(1000):
            await send({"type": "http.response.body", "body": b"%d" % n, "more_body": True})
            sent.append(n)
        told.append(await receive())

    async def main() -> None:
        response = await asgi.fetch(only_http(serve), get("/"), None)
        reader = response.body.getReader()
        assert (await reader.read()).value == b"0"
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(sent) < 20
        await asgi.fetch(only_http(serve), get("/"), None)
        unread = [task for task in asgi._streaming if not task.done()]
        assert len(unread) == 2

    async def left() -> None:
        response = await asgi.fetch(only_http(serve), get("/"), None)
        await response._body.discard()
        await asyncio.gather(*asgi._streaming)
        assert told == [{"type": "http.disconnect"}]

    asyncio.run(main())
    asgi._streaming.clear()
    asyncio.run(left())


@pytest.mark.parametrize("parts", [[b""], [b"unwanted"], [b"unwanted", b"more"]])
def test_statuses_without_a_body(parts: list[bytes]) -> None:
    """Whatever is sent with them."""

    async def serve(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await answer(send, *parts, status=304)

    async def main() -> None:
        response = await asgi.fetch(only_http(serve), get("/"), None)
        assert (response.status, response.body) == (304, None)

    asyncio.run(main())


def test_websockets_are_refused() -> None:
    """With what to do instead."""

    async def main() -> None:
        default = asgi.entrypoint(only_http(lambda *_: None))  # type: ignore[arg-type, return-value]
        with pytest.raises(NotImplementedError, match=r"asks for a WebSocket: .* poll, or answer with a stream"):
            await default(None, None).fetch(get("/ws", headers={"Upgrade": "WebSocket"}))  # type: ignore[attr-defined, arg-type]

    asyncio.run(main())


def test_wsgi_by_hand() -> None:
    """Parts come one by one, `write` too; what has a `close` is closed."""
    closed: list[bool] = []

    class Parts:
        def __init__(self, *parts: bytes) -> None:
            self.parts = list(parts)

        def __iter__(self) -> Any:
            return iter(self.parts)

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start: Any) -> Any:
        assert environ["wsgi.input"].read() == b"body" and environ["CONTENT_LENGTH"] == "4"
        assert (environ["HTTP_X_A"], environ["PATH_INFO"], environ["SERVER_PORT"]) == ("1", "/caf\xc3\xa9", "443")
        write = start("202 Taken", [("X-B", "2"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        write(b"w")
        return Parts(b"", b"a", b"b")

    async def main() -> None:
        request = get("/caf%C3%A9", method="POST", body=b"body", headers={"x-a": "1"})
        response = await wsgi.fetch(app, request, None)
        assert (response.status, response.status_text, response.headers.get_all("set-cookie")) == (202, "Taken", ["a=1", "b=2"])
        assert await response.text() == "wab" and closed == [True]
        bare = await wsgi.fetch(lambda environ, start: (start("204 No Content", []) and Parts()) or Parts(), get("/"), None)
        assert (bare.status, bare.body, closed) == (204, None, [True, True])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("app", "kind", "sentence"),
    [
        (lambda environ, start: [b"x"], RuntimeError, "did not call start_response"),
        (lambda environ, start: [start("200 OK", []), start("200 OK", [])], RuntimeError, "called start_response twice"),
        (lambda environ, start: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_wsgi_applications_that_fail(app: Any, kind: type[Exception], sentence: str) -> None:
    """Their errors are the caller's."""
    with pytest.raises(kind, match=sentence):
        asyncio.run(wsgi.fetch(app, get("/"), None))


def test_options() -> None:
    """A wrong one is refused with those that there are."""
    assert Options().encode_body == "automatic"
    with pytest.raises(ValueError, match="encode_body is 'none'; it must be one of automatic, manual"):
        Options(encode_body="none")  # type: ignore[arg-type]
