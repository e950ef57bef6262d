"""Error objects: always with name and message, and verbatim where they came whole."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.protocol.failures import SHOWN_BYTES_MAX, error_json, normal_error, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"name": "E", "message": "m", "stack": None, "code": "c"}, b'{"code":"c","message":"m","name":"E","stack":null}'),
        ({"name": "E", "message": ""}, b'{"message":"","name":"E"}'),
        ({"message": "Unauthorized"}, b'{"message":"Unauthorized","name":"Error"}'),
        ({"code": "step_unexpected", "message": "m"}, b'{"code":"step_unexpected","message":"m","name":"step_unexpected"}'),
        ({"error": "no step", "foundSteps": []}, b'{"error":"no step","foundSteps":[],"message":"no step","name":"Error"}'),
        ({"name": 1, "message": 2}, b'{"message":"otherwise","name":"Error"}'),
        ('{"name":"E","message":"m","__serialized":true}', b'{"__serialized":true,"message":"m","name":"E"}'),
        ("boom", b'{"message":"boom","name":"Error"}'),
        ("[1]", b'{"message":"[1]","name":"Error"}'),
        ({}, b'{"message":"otherwise","name":"Error"}'),
        (None, b'{"message":"otherwise","name":"Error"}'),
        ([1, 2.0], b'{"message":"[1,2]","name":"Error"}'),
        (5, b'{"message":"5","name":"Error"}'),
    ],
)
def test_errors_of_apps(value: Any, expected: bytes) -> None:
    """Whatever their shape."""
    assert normal_error(value, "otherwise") == expected


def test_errors_of_our_own() -> None:
    """Stack and code only where there are some; a text that cannot be encoded is told all the same."""
    assert error_json("E", "m") == b'{"message":"m","name":"E"}'
    assert error_json("E", "m", "s", "c") == b'{"code":"c","message":"m","name":"E","stack":"s"}'
    assert error_json("E", "file \udc80, é") == '{"message":"file ?, é","name":"E"}'.encode()


def test_bodies_are_shown_cut() -> None:
    """Eight kibibytes of them, whatever the bytes."""
    assert shown(b"\xff" + b"a" * SHOWN_BYTES_MAX) == "�" + "a" * (SHOWN_BYTES_MAX - 1)
