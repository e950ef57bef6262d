"""Values between handlers and bindings, and `env`: what may go, what comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell.workers.env import bind, env, patch_env
from stepwell.workers.rpc import Record, python_from_rpc, python_to_rpc
from stepwell.workers.web.blob import Blob
from stepwell.workers.web.response import Response


async def later() -> None: ...


@pytest.mark.parametrize(
    "value",
    [None, True, 1, 1.5, "text", b"bytes", [1, [None]], {"a": {"b": [1]}}, {1, 2}, datetime(2026, 1, 1), Blob("x"), Response("x"), later],
)
def test_what_may_be_sent(value: Any) -> None:
    """Plain values, times, blobs, responses, functions."""
    assert python_to_rpc(value) == value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ((1, 2), r"^<class 'tuple'> cannot be sent over RPC\.$"),
        ({"a": [(1,)]}, r"^<class 'tuple'> cannot be sent over RPC\.$"),
        (bytearray(b"x"), r"^<class 'bytearray'> cannot be sent over RPC\.$"),
        (object(), r"^<class 'object'> cannot be sent over RPC\.$"),
        (dict, r"^<class 'type'> cannot be sent over RPC\.$"),
        ({None: 1}, "a dict with the key None cannot be sent over RPC"),
    ],
)
def test_what_may_not_be_sent(value: Any, sentence: str) -> None:
    """Named by its kind, wherever it stands inside."""
    with pytest.raises(TypeError, match=sentence):
        python_to_rpc(value)


def test_what_nobody_awaits_may_not_be_sent() -> None:
    """The `await` is missing."""
    coroutine = later()
    with pytest.raises(TypeError, match=r"^Awaitable <class 'coroutine'> cannot be sent over RPC\.$"):
        python_to_rpc({"a": coroutine})
    coroutine.close()
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="more than 200 deep"):
        python_to_rpc(endless)


def test_what_is_sent_is_a_copy() -> None:
    """Keys are texts; an exception is what it said."""
    value = {"a": [1], 2: "two"}
    sent = python_to_rpc(value)
    value["a"].append(2)  # type: ignore[attr-defined]
    assert sent == {"a": [1], "2": "two"}
    error = python_to_rpc(KeyError("k"))
    assert type(error) is Exception and str(error) == "'k'"


def test_what_comes_back() -> None:
    """Dicts have attributes, times are local ones, numbers are of one kind."""
    got = python_from_rpc({"rows": [{"name": "a", "n": 2.0}], "half": 0.5})
    assert got.rows[0].name == "a" == got["rows"][0]["name"] and isinstance(got, dict)
    assert (got.rows[0].n, type(got.rows[0].n), got.half) == (2, int, 0.5)
    at = python_from_rpc(datetime(2026, 1, 1, 12, tzinfo=UTC))
    assert at.tzinfo is None and at == datetime(2026, 1, 1, 12, tzinfo=UTC).astimezone().replace(tzinfo=None)
    record = Record(a=1)
    record.b = 2
    del record.a
    assert record == {"b": 2} and not hasattr(record, "a")
    with pytest.raises(AttributeError, match="there is no 'zzz' in it: there are b"):
        record.zzz  # noqa: B018
    with pytest.raises(AttributeError, match=r"^a$"):
        del record.a


def test_env() -> None:
    """Variables are attributes, objects among them too; what is missing is told with what is there."""
    bind({"API": "https://a.example", "FLAGS": {"beta": True}})
    assert (env.API, env["API"], env.FLAGS.beta, dir(env), repr(env)) == (
        "https://a.example",
        "https://a.example",
        True,
        ["API", "FLAGS"],
        "<env API, FLAGS>",
    )
    assert getattr(env, "NOPE", None) is None
    with pytest.raises(AttributeError, match="env has no 'NOPE': the wrangler file binds API, FLAGS"):
        env.NOPE  # noqa: B018
    with pytest.raises(KeyError, match="NOPE"):
        env["NOPE"]


def test_env_with_other_values() -> None:
    """For a while, one inside the other."""
    bind({"API": "a"})
    with patch_env({"API": "b", "NEW": 1}):
        assert (env.API, env.NEW, dir(env)) == ("b", 1, ["API", "NEW"])
        with patch_env([("API", "c")], NEW=2):
            assert (env.API, env.NEW) == ("c", 2)
        assert env.API == "b"
    assert env.API == "a" and not hasattr(env, "NEW")
