"""Tokens, publishing, subscriptions by WebSocket and server-sent events, and what browsers of other origins may ask."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from stepwell.protocol.realtime import MESSAGE_BYTES_MAX, TEE_BYTES_MAX
from stepwell.protocol.signatures import bearer_hash
from tests.support.processes import Server, running, until

HTTP = httpx.Client(timeout=15)
SIGNING_KEY = "signkey-test-" + "12ab" * 8
SIGNED = {"authorization": f"Bearer {bearer_hash(SIGNING_KEY)}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dev server, without keys."""
    with running(Server(tmp_path_factory.mktemp("dev"))) as made:
        yield made


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a signing key."""
    with running(Server(tmp_path_factory.mktemp("keyed"), "--signing-key", SIGNING_KEY, command="start")) as made:
        yield made


def topic(channel: str, name: str) -> dict[str, str]:
    """As SDKs ask for it."""
    return {"channel": channel, "name": name, "kind": "run"}


def token(server: Server, *topics: dict[str, str], headers: dict[str, str] | None = None, **asked: Any) -> str:
    """A token for these topics."""
    body = {"topics": list(topics), **asked} if asked else list(topics)
    answer = HTTP.post(f"{server.url}/v1/realtime/token", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["jwt"])


def listen(server: Server, jwt: str) -> contextlib.AbstractContextManager[ClientConnection]:
    """A subscription by WebSocket."""
    return connect(f"{server.url.replace('http', 'ws')}/v1/realtime/connect?token={jwt}", max_size=None)


def publish(server: Server, channel: str, name: str, **request: Any) -> httpx.Response:
    """Publish, and be answered."""
    params = {"channel": channel, "topic": name, **request.pop("params", {})}
    return HTTP.post(f"{server.url}/v1/realtime/publish", params=params, **request)


def read(connection: ClientConnection) -> dict[str, Any]:
    """The next message."""
    message: dict[str, Any] = json.loads(connection.recv(timeout=10))
    return message


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{ "b": 1,\n "a": [1.0, 12345678901234567890] }', {"b": 1, "a": [1.0, 12345678901234567890]}),
        (b'"text"', "text"),
        (b"just text, \xc3\xbc", "just text, ü"),
        (b"", None),
        (b"{not json", "{not json"),
    ],
)
def test_json_is_kept_and_text_is_wrapped(server: Server, body: bytes, data: Any) -> None:
    """A message has its channel, topic, time, and the run and metadata that were named."""
    run_id = "01J0000000000000000000000E"
    with listen(server, token(server, topic("c", "t"))) as connection:
        answer = publish(server, "c", "t", content=body, params={"run_id": run_id, "metadata": '{"m": 1}'})
        assert (answer.status_code, answer.content) == (200, b"")
        message = read(connection)
    assert message.pop("created_at").endswith("Z")
    expected = {"kind": "data", "data": data, "channel": "c", "topic": "t", "run_id": run_id, "metadata": {"m": 1}}
    assert {key: value for key, value in message.items() if key != "env_id"} == expected


def test_several_topics_get_a_message_each(server: Server) -> None:
    """`topic` may come several times."""
    with listen(server, token(server, topic("c", "a"), topic("c", "b"))) as connection:
        HTTP.post(f"{server.url}/v1/realtime/publish?channel=c&topic=a&topic=b&topic=a&topic=z", content=b"1").raise_for_status()
        assert [read(connection)["topic"] for _ in range(2)] == ["a", "b"]


def test_a_stream_comes_in_parts(server: Server) -> None:
    """As soon as a part was sent, and not at the end; a character cut between two parts is whole."""
    with listen(server, token(server, topic("c", "s"))) as connection:
        messages = [{"data": ""}]

        def text() -> str:
            return "".join(one["data"] for one in messages if one.get("kind") == "chunk")

        def content() -> Iterator[bytes]:
            for part, seen in ((b"one ", "one "), (b"zwei \xc3", "one zwei "), (b"\xbc", "one zwei ü")):
                yield part
                while text() != seen:
                    messages.append(read(connection))

        publish(server, "c", "s", content=content(), headers={"content-type": "text/stream; charset=utf-8"}).raise_for_status()
        messages.append(read(connection))
    start, end = messages[1], messages[-1]
    assert (start["kind"], end["kind"]) == ("datastream-start", "datastream-end")
    assert {one["stream_id"] for one in messages[1:]} == {start["data"]} == {end["data"]}


@pytest.mark.parametrize(
    ("params", "status", "says"),
    [
        ({"channel": "", "topic": "t"}, 400, "channel"),
        ({"channel": "c"}, 400, "topic is missing"),
        ({"channel": "c", "topic": "$run"}, 400, "the server's own"),
        ({"channel": "c" * 600, "topic": "t"}, 400, "600 characters"),
        ({"channel": "c", "topic": "a\nb"}, 400, "cannot be printed"),
        ({"channel": "c", "topic": "t", "run_id": "x"}, 400, "no run id"),
        ({"channel": "c", "topic": "t", "metadata": "x" * 20_000}, 400, "metadata"),
    ],
)
def test_what_cannot_be_published_is_refused(server: Server, params: dict[str, str], status: int, says: str) -> None:
    """With the value and the reason."""
    answer = HTTP.post(f"{server.url}/v1/realtime/publish", params=params, content=b"1")
    assert answer.status_code == status and says in answer.json()["error"]


def test_bounds_of_a_message(server: Server) -> None:
    """The largest goes through; one byte more is a 413; bytes that are no text are a 400 that names the way for them."""
    largest = b'"' + b"x" * (MESSAGE_BYTES_MAX - 2) + b'"'
    with listen(server, token(server, topic("c", "big"))) as connection:
        assert publish(server, "c", "big", content=largest).status_code == 200
        assert len(read(connection)["data"]) == MESSAGE_BYTES_MAX - 2
    assert publish(server, "c", "big", content=largest + b" ").status_code == 413
    refused = publish(server, "c", "big", content=b"\xff\xfe")
    assert refused.status_code == 400 and "/tee" in refused.json()["error"]


def test_tokens_can_be_added_and_topics_dropped(server: Server) -> None:
    """`sub` with a further token, `unsub` with topics, `ping`; the answer lists what is listened to now."""
    with listen(server, token(server, topic("c", "one"))) as connection:
        connection.send(json.dumps({"kind": "sub", "data": token(server, topic("c", "two"))}))
        assert read(connection)["data"] == [topic("c", "one"), topic("c", "two")]
        connection.send(json.dumps({"kind": "unsub", "data": [topic("c", "one")]}))
        assert read(connection) == {"kind": "unsub", "data": [topic("c", "two")]}
        connection.send(b'{"kind":"ping"}')
        assert read(connection) == {"kind": "pong"}
        for name in ("one", "two"):
            publish(server, "c", name, content=name.encode())
        assert read(connection)["data"] == "two"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ("nonsense", "none that a subscriber sends"),
        ('{"kind":"sub","data":"x.y.z"}', "not one of this server's"),
        ('{"kind":"run"}', "not run"),
    ],
)
def test_a_subscriber_that_says_nonsense_is_told_and_closed(server: Server, sent: str, says: str) -> None:
    """A `closing` message with the reason, then the code for a broken protocol."""
    with listen(server, token(server, topic("c", "t"))) as connection:
        connection.send(sent)
        closing = read(connection)
        assert closing["kind"] == "closing" and says in closing["data"]
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_subscriber_that_sends_too_much_is_closed(server: Server) -> None:
    """Told so up to twice the bound; beyond it nothing is even read."""
    for size, code in ((70_000, 1008), (200_000, 1009)):
        with listen(server, token(server, topic("c", "t"))) as connection:
            connection.send("x" * size)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    connection.recv(timeout=10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == code


def test_a_token_is_asked_for(server: Server) -> None:
    """401 for none, a foreign or a spoiled one; 403 for one that is for publishing."""
    good = token(server, topic("c", "t"))
    foreign = "eyJhbGciOiJub25lIn0.eyJhdWQiOiJyZWFsdGltZSIsImV4cCI6OTk5OTk5OTk5OX0."
    for bad in ("", "x", good[:-3], foreign):
        with pytest.raises(InvalidStatus) as refused, listen(server, bad):
            pass
        assert refused.value.response.status_code == 401, bad
        assert HTTP.get(f"{server.url}/v1/realtime/sse", params={"token": bad}).status_code == 401
    writer = token(server, publish=True)
    assert HTTP.get(f"{server.url}/v1/realtime/sse", params={"token": writer}).status_code == 403


def test_a_token_ends(server: Server) -> None:
    """Then it is a 401 that says so."""
    short = token(server, topic("c", "t"), ttl=1)
    answer = until(
        lambda: found if (found := _status_of_sse(server, short)).status_code == 401 else None, "the token of one second has ended", 10
    )
    assert "ended" in answer.json()["error"]


def _status_of_sse(server: Server, jwt: str) -> httpx.Response:
    with HTTP.stream("GET", f"{server.url}/v1/realtime/sse", params={"token": jwt}) as answer:
        if answer.status_code != 200:
            answer.read()
        return answer


@pytest.mark.parametrize(
    "asked",
    [
        [],
        {},
        [1],
        [{"channel": "c"}],
        [{"channel": "c", "name": ""}],
        [topic("c", str(i)) for i in range(101)],
        {"publish": "yes"},
        {"topics": [topic("c", "t")], "ttl": 0},
        [topic("c" * 400, "t" * 200 + str(i)) for i in range(30)],
    ],
)
def test_what_is_no_request_for_a_token_is_refused(server: Server, asked: Any) -> None:
    """Also one whose token would not fit into a URL."""
    assert HTTP.post(f"{server.url}/v1/realtime/token", json=asked).status_code == 400


def test_keys(keyed: Server) -> None:
    """Tokens and publishing need the signing key, or, for publishing, a token that allows it."""
    asked = [topic("c", "t")]
    assert HTTP.post(f"{keyed.url}/v1/realtime/token", json=asked).status_code == 401
    assert publish(keyed, "c", "t", content=b"1").status_code == 401
    assert publish(keyed, "c", "t", content=b"1", headers={"authorization": "Bearer wrong"}).status_code == 401
    reader = token(keyed, topic("c", "t"), headers=SIGNED)
    anything = token(keyed, headers=SIGNED, publish=True)
    one = token(keyed, topic("c", "t"), headers=SIGNED, publish=True)

    def by(jwt: str, name: str = "t") -> int:
        return publish(keyed, "c", name, content=b"2", headers={"authorization": f"Bearer {jwt}"}).status_code

    with listen(keyed, reader) as connection:
        assert publish(keyed, "c", "t", content=b"1", headers=SIGNED).status_code == 200
        assert publish(keyed, "c", "t", content=b"1", headers={"authorization": f"Bearer {SIGNING_KEY}"}).status_code == 200
        assert (by(one), by(anything), by(anything, "other"), by(one, "other"), by(reader), by("a.b.c")) == (200, 200, 200, 403, 403, 401)
        assert [read(connection)["data"] for _ in range(4)] == [1, 1, 2, 2]


def test_tokens_outlive_a_restart_where_there_is_a_signing_key(tmp_path: Path) -> None:
    """Their secret comes from it."""
    with running(Server(tmp_path, "--signing-key", SIGNING_KEY, command="start")) as first:
        jwt = token(first, topic("c", "t"), headers=SIGNED)
        first.stop()
    with running(Server(tmp_path, "--signing-key", SIGNING_KEY, command="start")) as second, listen(second, jwt):
        pass


def test_server_sent_events(server: Server) -> None:
    """A line of data a message; what is teed comes as it was sent."""
    jwt = token(server, topic("run-1", "t"), topic("run-1", "$stream"))
    with HTTP.stream("GET", f"{server.url}/v1/realtime/sse", params={"token": jwt}, timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["access-control-allow-origin"] == "*"
        lines = answer.iter_lines()
        assert next(lines).startswith(":")
        publish(server, "run-1", "t", content=b'{"a":\n1}')
        HTTP.post(f"{server.url}/v1/realtime/publish/tee?channel=run-1", content=b'event: inngest.stream\ndata: {"data":1}\n\n')
        found = [line for line in (next(lines) for _ in range(6)) if line]
    assert json.loads(found[0].removeprefix("data: "))["data"] == {"a": 1}
    assert found[1:] == ["event: inngest.stream", 'data: {"data":1}']


def test_teed_bytes_reach_who_comes_a_moment_later(server: Server) -> None:
    """As bytes, over a WebSocket too."""
    url = f"{server.url}/v1/realtime/publish/tee?channel=run-2"
    HTTP.post(url, content=b"early \xff").raise_for_status()
    with listen(server, token(server, topic("run-2", "$stream"))) as connection:
        assert connection.recv(timeout=10) == b"early \xff"
        HTTP.post(url, content=b"late").raise_for_status()
        assert connection.recv(timeout=10) == b"late"


def test_teed_bytes_have_a_bound(server: Server) -> None:
    """Beyond it the rest is not forwarded, and the sender is told."""
    url = f"{server.url}/v1/realtime/publish/tee?channel=big"
    assert HTTP.post(url, content=b"x" * TEE_BYTES_MAX).status_code == 200
    assert HTTP.post(url, content=b"x" * (TEE_BYTES_MAX + 1)).status_code == 413


def test_a_server_that_stops_tells_its_subscribers(tmp_path: Path) -> None:
    """And stops at once: an open subscription holds nothing up."""
    with running(Server(tmp_path)) as server, listen(server, token(server, topic("c", "t"))) as connection:
        server.popen.terminate()
        closing = read(connection)
        assert closing["kind"] == "closing" and "stops" in closing["data"]
        assert server.popen.wait(10) == 0


def test_a_subscriber_that_does_not_read_is_dropped(server: Server) -> None:
    """The publisher notices nothing, another subscriber gets everything, and the slow one reads a whole beginning and the reason."""
    jwt = token(server, topic("c", "flood"))
    parts, size = 200, 100_000
    with listen(server, jwt) as slow, listen(server, jwt) as fast:
        fast_read = []
        for i in range(parts):
            publish(server, "c", "flood", json=[i, "x" * size]).raise_for_status()
            fast_read.append(read(fast)["data"][0])
        assert fast_read == list(range(parts))
        messages = []
        while (message := read(slow))["kind"] == "data":
            messages.append(message["data"][0])
    assert message["kind"] == "closing" and "too slowly" in message["data"]
    assert messages == list(range(len(messages))) and len(messages) < parts


def test_other_origins_may_use_what_sdks_use(server: Server) -> None:
    """Preflights are answered, and every answer allows any origin; the page's own routes stay its own."""
    asks = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-y",
    }
    for path in ("/v1/realtime/token", "/e/key", "/v0/gql", "/fn/register", "/nowhere"):
        answer = HTTP.options(server.url + path, headers=asks)
        assert answer.status_code == 204, path
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "authorization,x-y"
        assert "POST" in answer.headers["access-control-allow-methods"]
    origin = {"origin": "https://shop.example"}
    for path in ("/health", "/v1/events", "/v1/events/nonsense", "/nowhere", "/v1/realtime/sse"):
        assert HTTP.get(server.url + path, headers=origin).headers["access-control-allow-origin"] == "*", path
    assert HTTP.post(f"{server.url}/e/key", headers=origin, json={"name": "x"}).headers["access-control-allow-origin"] == "*"
    for path in ("/api/runs", "/"):
        for answer in (HTTP.get(server.url + path, headers=origin), HTTP.options(server.url + path, headers=asks)):
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, path
