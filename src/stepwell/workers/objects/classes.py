"""The classes of a project's objects: by which key each is stored, through all the names that migrations have given it."""

from __future__ import annotations

import msgspec

from stepwell.workers.config import Project
from stepwell.workers.part import function_name

DELETES_ALARM_SINCE = "2026-02-24"
"""The compatibility date from which `deleteAll()` takes the alarm away too."""


class Stored(msgspec.Struct, frozen=True):
    """A class: the key of what its objects have stored, and whether they have SQL."""

    key: str
    sql: bool = True


def stored_classes(project: Project) -> dict[str, Stored]:
    """The classes that the project has now. One that is bound and that no migration makes has SQL.

    A class that took the name of one that was deleted has a key of its own: nothing of the other's is there.
    """
    found: dict[str, Stored] = {}
    used: dict[str, int] = {}

    def made(name: str, sql: bool) -> Stored:
        used[name] = used.get(name, 0) + 1
        return Stored(name if used[name] == 1 else f"{name}.{used[name]}", sql)

    for migration in project.migrations:
        for name in migration.deleted_classes:
            found.pop(name, None)
        for renamed in migration.renamed_classes:
            if renamed.before in found:
                found[renamed.after] = found.pop(renamed.before)
        for names, sql in ((migration.new_classes, False), (migration.new_sqlite_classes, True)):
            for name in names:
                found[name] = made(name, sql)
    for binding in project.durable_objects:
        if binding.script in (None, project.name) and binding.class_name not in found:
            found[binding.class_name] = made(binding.class_name, True)
    return found


def object_kinds(project: Project) -> dict[str, str]:
    """The kinds of actors that the project's classes are to the server."""
    return {name: function_name(project.name, "objects", stored.key) for name, stored in stored_classes(project).items()}
