"""The versions of apps that workers bring. The one that was synced last counts: it is what the server knows of the app.

A worker that comes back with a version that is known and has been followed by a newer one changes nothing, or a deployment would be
undone by the reconnection of an old worker. A version that no worker has had for a while is forgotten; where it was the one that
counted, the newest of those that are left is synced in its place.
"""

from __future__ import annotations

from itertools import count

import msgspec

from stepwell.protocol.functions import Registration


class Group(msgspec.Struct, kw_only=True):
    """The workers of one version of an app. `hash` is of all that the app told; `rank` is higher the newer it is."""

    app: str
    hash: str
    registration: Registration
    rank: int
    sync_id: str = ""
    members: set[str] = msgspec.field(default_factory=set)
    empty_since_ms: int | None = None


class Groups:
    """All of them."""

    def __init__(self, group_ms: int) -> None:
        self._group_ms = group_ms
        self._by_hash: dict[str, Group] = {}
        self._current: dict[str, Group] = {}
        self._ranks = count(1)

    def get(self, hash: str) -> Group | None:
        """The group of this hash."""
        return self._by_hash.get(hash)

    def current(self, app: str) -> Group | None:
        """The group that counts for an app."""
        return self._current.get(app)

    def joins(self, registration: Registration, connection_id: str) -> tuple[Group, bool]:
        """A worker of this version has come. Says whether the app has to be synced with it."""
        group = self._by_hash.get(registration.checksum)
        current = self._current.get(registration.app_name)
        if group is None:
            group = Group(app=registration.app_name, hash=registration.checksum, registration=registration, rank=next(self._ranks))
            self._by_hash[group.hash] = group
        group.members.add(connection_id)
        group.empty_since_ms = None
        return group, not group.sync_id or current is None or current is group

    def counts(self, group: Group, sync_id: str) -> None:
        """The app was synced with this version."""
        group.sync_id = sync_id
        self._current[group.app] = group

    def leaves(self, group_hash: str, connection_id: str, now_ms: int) -> None:
        """A worker has gone."""
        group = self._by_hash.get(group_hash)
        if group is not None:
            group.members.discard(connection_id)
            if not group.members:
                group.empty_since_ms = now_ms

    def forget(self, now_ms: int) -> list[Group]:
        """Forget what has been empty for long. Gives the groups that have to be synced, since the one that counted is gone."""
        resync = []
        gone = [g for g in self._by_hash.values() if g.empty_since_ms is not None and now_ms - g.empty_since_ms >= self._group_ms]
        for group in gone:
            del self._by_hash[group.hash]
            if self._current.get(group.app) is group:
                del self._current[group.app]
                left = [other for other in self._by_hash.values() if other.app == group.app and other.members]
                if left:
                    resync.append(max(left, key=lambda other: other.rank))
        return resync
