"""What a project for Cloudflare's Python Workers is made of: its code, its bindings, its queues and schedules, as its wrangler file says.

Values only; `wrangler.py` reads them. A setting that the file does not give is `None`, where Stepwell has a default of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec


class Producer(msgspec.Struct, frozen=True, kw_only=True):
    """A binding that sends to a queue."""

    binding: str
    queue: str
    delivery_delay_s: int = 0


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """How the project takes messages of a queue: by its `queue` handler, or (`is_pulled`) by whoever asks over HTTP."""

    queue: str
    is_pulled: bool = False
    max_batch_size: int | None = None
    max_batch_timeout_s: int | None = None
    max_retries: int | None = None
    retry_delay_s: int | None = None
    max_concurrency: int | None = None
    dead_letter_queue: str | None = None
    visibility_timeout_ms: int | None = None


class KvNamespace(msgspec.Struct, frozen=True, kw_only=True):
    """A binding to a KV namespace; `id` is the same for all that share it."""

    binding: str
    id: str


class D1Database(msgspec.Struct, frozen=True, kw_only=True):
    """A binding to a database, and where its migrations lie."""

    binding: str
    name: str
    id: str
    migrations_dir: str = "migrations"
    migrations_table: str = "d1_migrations"


class DurableObjectBinding(msgspec.Struct, frozen=True, kw_only=True):
    """A binding to the objects of a class, of this project or (`script`) of another."""

    binding: str
    class_name: str
    script: str | None = None


class Renamed(msgspec.Struct, frozen=True, kw_only=True):
    """A class of Durable Objects that has another name now; its objects are the same."""

    before: str
    after: str


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the project's classes of Durable Objects, each made once, in order."""

    tag: str
    new_classes: tuple[str, ...] = ()
    new_sqlite_classes: tuple[str, ...] = ()
    renamed_classes: tuple[Renamed, ...] = ()
    deleted_classes: tuple[str, ...] = ()


class WorkflowBinding(msgspec.Struct, frozen=True, kw_only=True):
    """A binding to a workflow, whose class is this project's or (`script`) another's."""

    binding: str
    name: str
    class_name: str
    script: str | None = None


class ServiceBinding(msgspec.Struct, frozen=True, kw_only=True):
    """A binding to an entrypoint of another project; `None` is its default one."""

    binding: str
    service: str
    entrypoint: str | None = None


Kind = Literal["kv", "sqlite"]
"""Where the objects of a class keep what they store."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A project. `ignored` tells keys of its file that nothing is made of, each with the reason."""

    file: Path
    name: str
    main: Path
    environment: str | None = None
    compatibility_date: str = ""
    compatibility_flags: tuple[str, ...] = ()
    vars: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    producers: tuple[Producer, ...] = ()
    consumers: tuple[Consumer, ...] = ()
    crons: tuple[str, ...] = ()
    kv_namespaces: tuple[KvNamespace, ...] = ()
    d1_databases: tuple[D1Database, ...] = ()
    durable_objects: tuple[DurableObjectBinding, ...] = ()
    migrations: tuple[Migration, ...] = ()
    workflows: tuple[WorkflowBinding, ...] = ()
    services: tuple[ServiceBinding, ...] = ()
    cpu_ms: int | None = None
    ignored: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the project lies: its paths are told from here."""
        return self.file.parent

    def has_flag(self, flag: str) -> bool:
        """Whether a compatibility flag is set."""
        return flag in self.compatibility_flags

    @property
    def object_classes(self) -> dict[str, Kind]:
        """The classes of Durable Objects that its migrations leave, and what each stores in."""
        classes: dict[str, Kind] = {}
        for migration in self.migrations:
            for name in migration.deleted_classes:
                classes.pop(name, None)
            for renamed in migration.renamed_classes:
                if renamed.before in classes:
                    classes[renamed.after] = classes.pop(renamed.before)
            classes |= dict.fromkeys(migration.new_classes, "kv")
            classes |= dict.fromkeys(migration.new_sqlite_classes, "sqlite")
        return classes
