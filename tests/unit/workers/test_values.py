"""Values as JSON and back: what a Worker keeps comes back as what it was."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.workers.values import packed, unpacked
from stepwell.workers.web.response import Response

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=20)
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(
    lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000, fold=0)
)
keys = st.text(max_size=5) | st.sampled_from(["$bytes", "$time", "$set", "$error", "$number", "$plain"])
values = st.recursive(
    plain | times, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | st.sets(st.integers() | st.text())
)


@given(values)
def test_values_come_back(value: Any) -> None:
    """Through JSON, whatever a Worker's own keys are."""
    assert unpacked(json.loads(json.dumps(packed(value)))) == value


def test_what_is_not_equal_to_itself() -> None:
    """Numbers that are none, exceptions, times with a zone."""
    assert math.isnan(unpacked(packed([math.nan]))[0])
    error = unpacked(packed(ValueError("no")))
    assert type(error) is Exception and str(error) == "no"
    at = datetime(2026, 7, 30, 12, tzinfo=UTC)
    assert unpacked(packed(at)) == at.astimezone().replace(tzinfo=None)
    row = unpacked(packed({"row": {"name": "a"}}))
    assert row.row.name == "a"


@pytest.mark.parametrize("value", [Response("x"), print, {"a": [print]}, (1,)])
def test_what_cannot_be_kept(value: Any) -> None:
    """By its kind."""
    with pytest.raises(TypeError, match=r"cannot be (kept|sent over RPC)"):
        packed(value)
