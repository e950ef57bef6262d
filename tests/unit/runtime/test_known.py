"""What the node gives to be decided a second time, because it does not know what became of the first."""

from __future__ import annotations

from stepwell.engine.inputs import EventsReceived, HolderRenewed
from stepwell.runtime.heart import known


def test_an_input_that_is_given_again_says_that_it_may_be_stored() -> None:
    """Its ids are looked for; that the node tries again is no receipt of a sender's."""
    assert known(EventsReceived((), fresh=True)) == EventsReceived(())
    assert known(EventsReceived((), seeded=True)) == EventsReceived(())
    other = HolderRenewed("node/1")
    assert known(other) is other
