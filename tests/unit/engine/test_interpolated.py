"""A condition is shown with the run's own values in it, and otherwise word for word."""

from __future__ import annotations

import pytest

from stepwell.engine.expression.binding import interpolated

OWN = {"name": "x", "data": {"id": 'a"b', "n": 1.5, "list": [1, {"k": None}], "long": "y" * 2000, "yes": True}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("event.data.id == async.data.id && async.data.ok", '"a\\"b" == async.data.id && async.data.ok'),
        ('event.data["id"]==async.data.id', '"a\\"b"==async.data.id'),
        ("async.event.data == event.name // event.data.id", 'async.event.data == "x" // event.data.id'),
        ("event.data.nope == async.x", "null == async.x"),
        ("event.data.list == async.list", '[1,{"k":null}] == async.list'),
        ("event.data.n < 2 || event.data.yes", "1.5 < 2 || true"),
        ('event.data.id.startsWith("event.name") ', '"a\\"b".startsWith("event.name") '),
        ("event.data.long == async.x", "event.data.long == async.x"),
        ("event == async", "event == async"),
        ("event.data.list[0] == async.data[event.name]", '[1,{"k":null}][0] == async.data["x"]'),
        ("event.data[async.k] == 1", '{"id":"a\\"b","n":1.5,"list":[1,{"k":null}],"yes":true}[async.k] == 1'),
    ],
)
def test_fields_of_the_runs_own_event(text: str, shown: str) -> None:
    """Replaced by their values; names in strings, of other events, of what is called, and values that are too long stay."""
    own = OWN if "async.k" not in text else {**OWN, "data": {key: value for key, value in OWN["data"].items() if key != "long"}}
    assert interpolated(text, own) == shown
