"""How a node makes up its groups: who comes first, and what share due timers have."""

from __future__ import annotations

import asyncio

import pytest

from stepwell.engine.inputs import CallsReturned, Claim, HolderRenewed, TimerDue
from stepwell.runtime.node import GROUP_MAX, TIMERS_TURN, Node
from stepwell.store.memory import MemoryStore

SHARE = GROUP_MAX // TIMERS_TURN


def group(*, answers: int = 0, requests: int = 0, claims: int = 0, timers: int = 0) -> list[str]:
    """The kinds of a node's next group, where so much waits."""
    return asyncio.run(_group(answers, requests, claims, timers))


async def _group(answers: int, requests: int, claims: int, timers: int) -> list[str]:
    node = Node(MemoryStore())
    for _ in range(timers):
        node.submit(TimerDue("t"))
    for _ in range(claims):
        node.submit(Claim("h", ()))
    for _ in range(requests):
        node.submit(HolderRenewed("h"))
    for _ in range(answers):
        node.submit(CallsReturned((), "why"))
    return [type(input).__name__ for input, _ in node._take()]


def test_timers_have_a_quarter_while_others_wait() -> None:
    """However many there are of either, and in each part of the group: one that is cut for its time keeps the share."""
    kinds = group(answers=1000, timers=1000)
    assert len(kinds) == GROUP_MAX and kinds[0] == "CallsReturned"
    for end in range(TIMERS_TURN, GROUP_MAX, TIMERS_TURN):
        assert kinds[:end].count("TimerDue") == end // TIMERS_TURN


@pytest.mark.parametrize("others", [1, 50, 150])
def test_timers_have_their_quarter_where_few_others_wait(others: int) -> None:
    """The rest of their share follows the others."""
    kinds = group(requests=others, timers=1000)
    assert kinds.count("TimerDue") == SHARE and kinds.count("HolderRenewed") == others


def test_a_group_of_timers_alone() -> None:
    """Is as large as any."""
    assert group(timers=1000) == ["TimerDue"] * GROUP_MAX


def test_turns() -> None:
    """Answers, then requests, then claims; a timer after every third."""
    kinds = group(answers=2, requests=2, claims=2, timers=2)
    assert kinds == ["CallsReturned", "CallsReturned", "HolderRenewed", "TimerDue", "HolderRenewed", "Claim", "Claim", "TimerDue"]
    assert group(answers=2, claims=1) == ["CallsReturned", "CallsReturned", "Claim"]
