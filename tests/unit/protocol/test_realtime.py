"""Messages of realtime as they are written, and what is read of subscribers and of requests for tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Raw

from stepwell.errors import ProtocolError
from stepwell.protocol.realtime import (
    MESSAGE_BYTES_MAX,
    PING,
    PONG,
    Claims,
    Kind,
    Message,
    TokenTopic,
    Topic,
    checked_name,
    closing_message,
    data_of,
    encode_message,
    parse_asked,
    parse_topics,
)

from .messages import NOW_MS, RUN_ID

GOLDEN = Path(__file__).parent / "golden_realtime"


def message(kind: Kind, data: bytes, **fields: str) -> bytes:
    """A message of a channel's topic."""
    return encode_message(Message(kind=kind, data=Raw(data), channel="orders", topic="status", **fields), NOW_MS)


MESSAGES = {
    "data": lambda: encode_message(
        Message(
            kind="data",
            data=Raw('{"b":1,"a":"ü"}'.encode()),
            channel="orders:7",
            topic="status",
            run_id=RUN_ID,
            env_id="e",
            metadata=Raw(b'{"m":1}'),
        ),
        NOW_MS + 7,
    ),
    "run": lambda: encode_message(
        Message(kind="run", data=Raw(b'{"status":"completed"}'), channel=RUN_ID, topic="$run", run_id=RUN_ID, fn_id="f", fn_slug="shop-f"),
        NOW_MS,
    ),
    "step": lambda: encode_message(Message(kind="step", data=Raw(b'{"id":"s"}'), channel=RUN_ID, topic="$step", run_id=RUN_ID), NOW_MS),
    "datastream-start": lambda: message("datastream-start", b'"st-1"', stream_id="st-1"),
    "chunk": lambda: message("chunk", b'"one "', stream_id="st-1"),
    "datastream-end": lambda: message("datastream-end", b'"st-1"', stream_id="st-1"),
    "event": lambda: message("event", b'{"name":"shop/paid"}'),
    "sub": lambda: encode_message(Message(kind="sub", data=Raw(b'[{"channel":"c","name":"t","kind":"run"}]'))),
    "unsub": lambda: encode_message(Message(kind="unsub", data=Raw(b"[]"))),
    "ping": lambda: PING,
    "pong": lambda: PONG,
    "closing": lambda: closing_message("the server stops"),
}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_messages_are_written_as_ever(name: str) -> None:
    """Byte for byte, in one line, and with no field that is null: readers refuse those."""
    written, path = MESSAGES[name](), GOLDEN / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(written + b"\n")
        pytest.fail(f"{path.name} was missing and has been written: look at it, then commit it")
    assert written == path.read_bytes().removesuffix(b"\n")
    assert b"\n" not in written and None not in json.loads(written).values()


def test_every_kind_has_its_golden_file() -> None:
    """None is forgotten, none is left behind."""
    kinds = set(Kind.__args__)  # type: ignore[attr-defined]
    assert {path.stem for path in GOLDEN.iterdir()} == set(MESSAGES) == kinds


def test_data_of_bodies() -> None:
    """JSON keeps the order of its keys and the spelling of its numbers; text is wrapped; what is too large or no text is refused."""
    assert bytes(data_of(b' {"b": 1.0,\n"a": [1e2, 123456789012345678901]}')) == b'{"b":1.0,"a":[1e2,123456789012345678901]}'
    assert bytes(data_of("hallo ü".encode())) == '"hallo ü"'.encode()
    assert bytes(data_of(b" \n")) == b"null"
    for body, status in ((b"1" * (MESSAGE_BYTES_MAX + 1), 413), (b"\xff", 400), (b"[" * 5000, 400)):
        with pytest.raises(ProtocolError) as refused:
            data_of(body)
        assert refused.value.status == status


def test_topics_are_read_once_each() -> None:
    """In order, without repetitions."""
    asked = [{"channel": "c", "name": "t", "kind": "run"}, {"channel": "c", "topic": "u"}, {"channel": "c", "name": "t"}]
    assert parse_topics(asked) == (Topic("c", "t"), Topic("c", "u"))
    assert Topic("c", "t").wire() == asked[0]
    for bad in (None, [], {}, ["c"], [{"channel": "c"}], [{"channel": 1, "name": "t"}]):
        with pytest.raises(ProtocolError):
            parse_topics(bad)


def test_names() -> None:
    """The server's own names can be read, and not be published to."""
    assert checked_name("$run", "topic") == "$run" and checked_name("$x", "channel", publishes=True) == "$x"
    for bad in ("", None, "a\x00", "x" * 513):
        with pytest.raises(ProtocolError):
            checked_name(bad, "topic")
    with pytest.raises(ProtocolError, match="server's own"):
        checked_name("$run", "topic", publishes=True)


def test_what_a_token_lets_one_do() -> None:
    """One for reading publishes nothing, one for publishing reads nothing; without topics it publishes anywhere."""
    reads = Claims(jti="1", iat=1, exp=2, topics=(TokenTopic("c", "t"),))
    writes = Claims(jti="1", iat=1, exp=2, topics=(TokenTopic("c", "t"),), publish=True)
    anywhere = Claims(jti="1", iat=1, exp=2, publish=True)
    assert reads.readable() == (Topic("c", "t"),) and writes.readable() == anywhere.readable() == ()
    assert [one.lets_publish("c", ("t",)) for one in (reads, writes, anywhere)] == [False, True, True]
    assert [one.lets_publish("c", ("t", "u")) for one in (reads, writes, anywhere)] == [False, False, True]


def test_what_subscribers_send() -> None:
    """Unknown fields pass; what is no message, of no kind, or too long does not."""
    assert parse_asked('{"kind":"sub","data":"x","more":1}').data == "x"
    for bad in ("", "x", "[]", '{"kind":"other"}', '{"data":1}', b"\xff", '{"kind":"sub","data":"' + "x" * 70_000 + '"}'):
        with pytest.raises(ProtocolError):
            parse_asked(bad)
