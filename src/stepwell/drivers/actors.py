"""The seam between the server's knowledge of actors and the places where they live: a child process, or the server's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from stepwell.protocol.actors import ActorKind, FromActors, ToActors


class ActorHost(Protocol):
    """A place for activations."""

    @property
    def takes_actors(self) -> bool:
        """Whether actors may come here."""
        ...

    def tell(self, message: ToActors) -> None:
        """Tell it something; in order, and without a wait."""
        ...


class ActorHouse(Protocol):
    """What places tell the server."""

    def serve(self, kinds: Iterable[ActorKind], hosts: Callable[[], Sequence[ActorHost]]) -> None:
        """These kinds live in these places from now on."""
        ...

    def take(self, host: ActorHost, message: FromActors) -> None:
        """A place tells something."""
        ...

    def changed(self) -> None:
        """A place may take actors that took none before."""
        ...

    def gone(self, host: ActorHost, why: str, *, taken: bool) -> None:
        """A place is no more, and what lived there neither. `taken`: it was ended on purpose, and not by what ran there."""
        ...
