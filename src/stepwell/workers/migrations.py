"""Migrations of D1 databases: files of SQL, each done once, in order, as `wrangler d1 migrations apply --local` does them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from stepwell.errors import SqlError, UsageError
from stepwell.store.databases import Databases, Result
from stepwell.workers.bindings.names import store_name
from stepwell.workers.config import D1Database, Project

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


async def migrate(databases: Databases, project: Project, say: Callable[[str], None]) -> None:
    """Do what is new of a project's migrations. Raises `UsageError` naming the file that fails; those before it are done."""
    for database in project.d1_databases:
        folder = project.folder / database.migrations_dir
        files = sorted(folder.glob("*.sql")) if folder.is_dir() else []
        if files:
            await _migrate(databases, database, files, project, say)


async def _migrate(databases: Databases, database: D1Database, files: list[Path], project: Project, say: Callable[[str], None]) -> None:
    table, name = database.migrations_table, store_name(database.name)
    if not _TABLE.fullmatch(table):
        raise UsageError(f"{project.file}: migrations_table is {table!r}; it must be a name of letters, digits and _")
    kept = (
        f"CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, "
        "applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP NOT NULL)"
    )
    done = set(await databases.query(name, [(kept, ()), (f"SELECT name FROM {table}", ())], _names))
    for file in files:
        if file.name in done:
            continue
        try:
            sql = file.read_text("utf-8")
            await databases.query(name, [(sql, ()), (f"INSERT INTO {table} (name) VALUES (?)", (file.name,))], lambda results: None)
        except (SqlError, OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the migration {file} of the database {database.name!r} failed, and nothing of it is done: {error}") from None
        say(f"{project.name}: the database {database.name} has {file.name} now")


def _names(results: Sequence[Result]) -> list[str]:
    return [str(row[0]) for row in results[-1].rows.rows]
