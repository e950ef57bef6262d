"""Ids are functions of what they are made of."""

from __future__ import annotations

import base64

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.ids import (
    app_uuid,
    derived_ulid,
    function_uuid,
    is_ulid,
    numbered_ulids,
    parse_seed,
    run_ulid,
    seeded_ulid,
    step_hash,
    ulid,
    ulid_ms,
)

ENTROPY = bytes(range(10))


def test_a_ulid_holds_its_time_and_sorts_by_it() -> None:
    """Crockford base32, 26 characters."""
    made = ulid(1_735_689_600_000, ENTROPY)
    assert made == "01JGFJJZ00000G40R40M30E209"
    assert is_ulid(made) and ulid_ms(made) == 1_735_689_600_000
    assert ulid(1, b"\xff" * 10) < ulid(2, b"\0" * 10)
    assert ulid((1 << 48) - 1, b"\xff" * 10) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@pytest.mark.parametrize("text", ["", "01JGFJJZ00000G40R40M30E20", "81JGFJJZ00000G40R40M30E209", "01jgfjjz00000g40r40m30e209", "I" * 26])
def test_what_is_no_ulid(text: str) -> None:
    """Has no time."""
    assert not is_ulid(text)
    with pytest.raises(ProtocolError, match="no ULID"):
        ulid_ms(text)


def test_a_derived_ulid_depends_on_every_part_and_nothing_else() -> None:
    """The same time and parts give the same id, other parts another; where one part ends matters."""
    assert derived_ulid(5, "a", "b") == derived_ulid(5, "a", "b")
    assert len({derived_ulid(5, "a", "b"), derived_ulid(5, "ab"), derived_ulid(5, "a"), derived_ulid(6, "a", "b")}) == 4


def test_seeded_ids_count_up_from_the_seed() -> None:
    """The n-th event's id adds n to the last four bytes, big-endian and wrapping (§2.4)."""
    header = "1735689600000," + base64.b64encode(bytes([1, 2, 3, 4, 5, 6, 0xFF, 0xFF, 0xFF, 0xFE])).decode()
    assert parse_seed(header) == (1_735_689_600_000, bytes([1, 2, 3, 4, 5, 6, 0xFF, 0xFF, 0xFF, 0xFE]))
    assert seeded_ulid(header, 1) == ulid(1_735_689_600_000, bytes([1, 2, 3, 4, 5, 6, 0xFF, 0xFF, 0xFF, 0xFF]))
    assert seeded_ulid(header, 2) == ulid(1_735_689_600_000, bytes([1, 2, 3, 4, 5, 6, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    "header",
    [None, "", "x", "1,", "1,AAAA", "-1,AAAAAAAAAAAAAA==", "999999999999999,AAAAAAAAAAAAAA==", "1,AAAAAAAAAAAAAA", "1,AAAAAAAAAAAAA!=="],
)
def test_a_malformed_seed_is_ignored(header: str | None) -> None:
    """As if it were not there."""
    assert parse_seed(header) is None
    assert seeded_ulid(header, 1) is None


def test_steps_are_known_by_the_hash_of_their_id() -> None:
    """The k-th repetition gets `:k` behind its id, the first nothing (§4.2)."""
    assert step_hash("charge") == "5ea9c348e59fe73a4b15cb287e33e4546dcef782"
    assert step_hash("charge", 0) == step_hash("charge")
    assert step_hash("charge", 2) == step_hash("charge:2")


def test_apps_and_functions_have_ids_of_their_names() -> None:
    """The same on every node, and different for an app and a function of one name."""
    assert app_uuid("shop") == app_uuid("shop") != function_uuid("shop")


def test_what_came_together_stays_in_its_order() -> None:
    """Ids of one request, and the runs they start, sort by their place in it, though the numbers go round."""
    ids = numbered_ulids(5, bytes(10))
    events = [ids(n) for n in range(1, 50)]
    assert events == sorted(events) and len(set(events)) == 49
    for function in ("a-f", "a-g"):
        runs = [run_ulid(7, function, event) for event in events]
        assert runs == sorted(runs) and len(set(runs)) == 49 and all(is_ulid(run) for run in runs)
    assert run_ulid(7, "a-f", events[0]) != run_ulid(7, "a-g", events[0])
    assert numbered_ulids(5, b"\xff" * 10)(1) == numbered_ulids(5, bytes(10))(0)
