"""Which worker gets a call, and which version of an app counts."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.drivers.connect.groups import Groups
from stepwell.drivers.connect.roster import UNLIMITED, Roster, Worker
from stepwell.protocol.functions import Registration, registration


def roster(*workers: tuple[str, int, int | None]) -> Roster:
    """Ready workers of one app: name, how new, how many calls."""
    made = Roster()
    for name, rank, most in workers:
        worker = Worker(name, f"i-{name}", {"shop": rank}, most)
        made.add(worker)
        worker.ready = True
        made.changed(worker)
    return made


def taken(made: Roster, times: int, without: tuple[str, ...] = ()) -> list[str]:
    """Who gets the next calls."""
    return [worker.connection_id for _ in range(times) if (worker := made.take("shop", without)) is not None]


def test_the_most_room_first() -> None:
    """Calls spread by free room; beyond it nobody takes one."""
    made = roster(("a", 1, 2), ("b", 1, 4))
    assert made.free("shop") == 6
    assert taken(made, 2) == ["b", "b"]
    assert Counter(taken(made, 10)) == {"a": 2, "b": 2}
    assert made.free("shop") == 0 and made.take("shop") is None
    made.give_back("a")
    assert made.free("shop") == 1 and taken(made, 5) == ["a"]


def test_the_newest_version_first() -> None:
    """An older one gets what the newer has no room for."""
    made = roster(("old", 1, 100), ("new", 2, 1))
    assert taken(made, 3) == ["new", "old", "old"]
    made.give_back("new")
    assert taken(made, 1) == ["new"]


def test_workers_that_were_tried_are_passed_over() -> None:
    """And get the next call as before."""
    made = roster(("a", 1, 9), ("b", 1, 2))
    assert taken(made, 1, without=("a",)) == ["b"]
    assert made.take("shop", ("a", "b")) is None
    assert taken(made, 1) == ["a"]


def test_limits() -> None:
    """Nothing said is a thousand; 0 is no limit."""
    assert roster(("a", 1, None)).free("shop") == 1000
    assert roster(("a", 1, 0)).free("shop") == UNLIMITED


def test_one_worker_with_two_apps() -> None:
    """Its room is for both."""
    made = Roster()
    worker = Worker("a", "i", {"shop": 1, "mail": 1}, 2)
    made.add(worker)
    worker.ready = True
    made.changed(worker)
    assert made.take("shop") is worker and made.take("mail") is worker
    assert made.free("shop") == made.free("mail") == 0 and made.take("mail") is None


def test_doubted_and_gone() -> None:
    """Neither gets calls."""
    made = roster(("a", 1, 5), ("b", 1, 5))
    for worker in made:
        if worker.connection_id == "a":
            worker.doubted = True
            made.changed(worker)
    assert set(taken(made, 3)) == {"b"} and made.free("shop") == 2
    made.remove("b")
    assert made.free("shop") == 0 and made.take("shop") is None and made.give_back("b") is None


@given(st.lists(st.tuples(st.sampled_from(["take", "back", "toggle", "leave", "join"]), st.integers(0, 3)), max_size=300))
def test_the_roster_against_a_plain_search(steps: list[tuple[str, int]]) -> None:
    """Whatever comes and goes, the worker taken is one that a search of all would take, and the sum is right."""
    made = Roster()
    for kind, n in steps:
        name = f"w{n}"
        worker = made.get(name)
        if kind == "join" and worker is None:
            worker = Worker(name, name, {"shop": n % 2}, n + 1)
            made.add(worker)
            worker.ready = True
            made.changed(worker)
        elif kind == "toggle" and worker is not None:
            worker.ready = not worker.ready
            made.changed(worker)
        elif kind == "leave":
            made.remove(name)
        elif kind == "back" and worker is not None and worker.in_hand:
            made.give_back(name)
        elif kind == "take":
            best = max(((one.ranks["shop"], one.free) for one in made if one.free), default=None)
            found = made.take("shop")
            assert (found is None) == (best is None)
            if found is not None and best is not None:
                assert (found.ranks["shop"], found.free + 1) == best
        assert made.free("shop") == sum(one.free for one in made)


# Versions.


def version(name: str) -> Registration:
    """A version of the app."""
    return registration(app_name="shop", url="", sdk="py:v1", app_version=name, functions=())


@pytest.fixture
def groups() -> Groups:
    """Two versions, the newer of which counts."""
    made = Groups(60_000)
    for name in ("v1", "v2"):
        group, sync = made.joins(version(name), f"{name}-a")
        assert sync
        made.counts(group, f"sync-{name}")
    return made


def test_an_old_worker_that_comes_back_undoes_nothing(groups: Groups) -> None:
    """It joins its version, which does not count."""
    group, sync = groups.joins(version("v1"), "v1-b")
    assert not sync and group.rank < groups.joins(version("v2"), "v2-b")[0].rank
    assert groups.current("shop") is groups.get(version("v2").checksum)


def test_a_version_without_workers_is_forgotten(groups: Groups) -> None:
    """After a while, and where it counted the newest that is left takes its place."""
    old, new = groups.get(version("v1").checksum), groups.get(version("v2").checksum)
    assert old is not None and new is not None
    groups.leaves(new.hash, "v2-a", 1000)
    assert groups.forget(60_999) == []
    assert groups.forget(61_000) == [old]
    assert groups.get(new.hash) is None
    again, sync = groups.joins(version("v2"), "v2-c")
    assert sync and again.rank > new.rank


def test_a_blip_is_no_rollback(groups: Groups) -> None:
    """The newest version's workers come back in time: it still counts."""
    new = groups.get(version("v2").checksum)
    assert new is not None
    groups.leaves(new.hash, "v2-a", 1000)
    assert groups.joins(version("v2"), "v2-b") == (new, True)
    assert groups.forget(1_000_000) == []


def test_a_sync_that_failed_is_made_with_the_next_worker(groups: Groups) -> None:
    """A version that was never synced is not taken for known."""
    group, sync = groups.joins(version("v3"), "v3-a")
    assert sync
    groups.leaves(group.hash, "v3-a", 0)
    assert groups.joins(version("v3"), "v3-b") == (group, True)
