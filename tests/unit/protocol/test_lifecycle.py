"""Data of the server's own events (§6); their bytes are in the golden files."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.protocol.lifecycle import correlation_of, error_body, lifecycle_data, split_correlation

from .messages import EVENT, RUN_ID


def data(status: str, output: bytes | None, **options: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(lifecycle_data("shop-charge", RUN_ID, status, output, [EVENT.wire()], **options))
    return decoded


def test_a_run_that_returned() -> None:
    """Has its result, null too; its events; and who waits for it."""
    told = data("completed", b"null", correlation_id="r.h")
    assert (told["result"], told["correlation_id"], told["_inngest"]) == (None, "r.h", {"status": "Completed"})
    assert told["event"] == told["events"][0] == json.loads(EVENT.wire())
    assert "error" not in told and "result" not in data("completed", None)


def test_a_run_that_failed() -> None:
    """Has an error with name and message, and no result."""
    told = data("failed", b'{"message":"m","name":"E"}')
    assert told["error"] == {"error": "E: m", "message": "m", "name": "E"}
    assert "result" not in told and "correlation_id" not in told


def test_a_run_that_was_cancelled() -> None:
    """Has neither."""
    told = data("cancelled", b'{"message":"m","name":"E"}')
    assert told["_inngest"] == {"status": "Cancelled"}
    assert "error" not in told and "result" not in told
    assert json.loads(lifecycle_data("f", RUN_ID, "elsewhere", None, []))["_inngest"] == {"status": "elsewhere"}


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (None, {"error": "Error", "message": "", "name": "Error"}),
        (b'"boom"', {"error": "Error: boom", "message": "boom", "name": "Error"}),
        (b"[1]", {"error": "Error: [1]", "message": "[1]", "name": "Error"}),
        (
            b'{"error":"invalid status code: 500","name":"E","message":"m","x":1}',
            {"error": "invalid status code: 500", "name": "E", "message": "m", "x": 1},
        ),
    ],
)
def test_errors_always_have_their_keys(output: bytes | None, error: dict[str, Any]) -> None:
    """Whatever the run left."""
    assert json.loads(error_body(output)) == error


def test_correlations_name_run_and_step() -> None:
    """And are taken apart again."""
    assert correlation_of("r", "h") == "r.h"
    assert split_correlation("r.h") == ("r", "h")
