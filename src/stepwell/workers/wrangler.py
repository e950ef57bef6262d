"""Reads a project's wrangler file: `wrangler.json`, `wrangler.jsonc` or `wrangler.toml`, whichever is there first.

What is wrong is told with file, key, value and what it may be. A key that Cloudflare has and nothing here is made of is no error: the
project tells it in `ignored`.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stepwell.errors import ProtocolError, UsageError
from stepwell.protocol.cloudflare_cron import CloudflareCron
from stepwell.protocol.queues import (
    BATCH_SIZE_MAX,
    BATCH_TIMEOUT_MS_MAX,
    CONCURRENCY_MAX,
    DELAY_S_MAX,
    MAX_RETRIES_MAX,
    VISIBILITY_MS_MAX,
)
from stepwell.workers.config import (
    Consumer,
    D1Database,
    DurableObjectBinding,
    KvNamespace,
    Migration,
    Producer,
    Project,
    Renamed,
    ServiceBinding,
    WorkflowBinding,
)
from stepwell.workers.dotvars import read_secrets
from stepwell.workers.jsonc import read_jsonc
from stepwell.workers.wrangler_table import Table

FILES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
CPU_MAX_MS = 300_000

_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,62}")
_BINDING = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_DATE = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")

INHERITED = ("name", "main", "compatibility_date", "compatibility_flags", "triggers", "limits", "migrations")
"""What an environment has from the top of the file unless it says otherwise; all else, bindings above all, it says itself."""

HARMLESS = (
    "$schema account_id alias base_dir build cache cloudchamber compliance_region data_blobs define dev find_additional_modules "
    "first_party_worker jsx_factory jsx_fragment keep_names keep_vars legacy_env logfwdr logpush minify no_bundle node_compat "
    "observability placement preserve_file_names preview_urls python_modules route routes rules send_metrics site streaming_tail_consumers "
    "tail_consumers text_blobs tsconfig unsafe upload_source_maps usage_model version_metadata wasm_modules workers_dev zone_id"
)
"""Keys about deploying to Cloudflare, bundling and observing there: a project runs the same without them."""
NOT_HERE = (
    "ai ai_search analytics_engine_datasets assets browser containers dispatch_namespaces hyperdrive images media mtls_certificates "
    "pipelines r2_buckets ratelimits secrets_store_secrets send_email unsafe_hello_world vectorize vpc_services worker_loaders"
)
"""Products of Cloudflare's that have no counterpart here: their bindings are missing from `env`."""
_READ = ("vars", "queues", "kv_namespaces", "d1_databases", "durable_objects", "workflows", "services", "env", *INHERITED)


def read_project(place: Path, environment: str | None = None) -> Project:
    """The project of a folder, or of a wrangler file, in an environment of its file or at its top. Raises `UsageError`."""
    file = _file_of(place)
    top = Table(str(file), "", _content(file))
    ignored: list[str] = []
    if environment is None:
        chosen = top
        top.take("env")
    else:
        chosen = _environment(top, environment)
    told = _read(file, chosen, environment)
    ignored += _left(chosen)
    return _checked(Project(**told, ignored=tuple(ignored)), chosen)


def check_together(projects: Sequence[Project]) -> None:
    """Refuse projects that cannot run beside each other: of one name, or taking messages of one queue. Raises `UsageError`."""
    names: dict[str, Project] = {}
    takers: dict[str, str] = {}
    for project in projects:
        if project.name in names:
            raise UsageError(
                f"{names[project.name].file} and {project.file} both have the name {project.name!r}: give one of them another name"
            )
        names[project.name] = project
        for consumer in project.consumers:
            other = takers.setdefault(consumer.queue, project.name)
            if other != project.name:
                raise UsageError(
                    f'Multiple consumers defined for queue "{consumer.queue}": "{other}" and "{project.name}"; '
                    f"remove queues.consumers of {consumer.queue!r} from one of them"
                )


def _file_of(place: Path) -> Path:
    if place.is_file():
        return place
    found = [place / name for name in FILES if (place / name).is_file()]
    if not found:
        there = "has none" if place.is_dir() else "is no folder"
        raise UsageError(f"{place} {there} of {', '.join(FILES)}: give the folder of a Worker's project")
    return found[0]


def _content(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    if file.suffix != ".toml":
        content = read_jsonc(text, str(file))
        if not isinstance(content, dict):
            raise UsageError(f"{file} holds {type(content).__name__}; it must hold an object")
        return content
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is no TOML: {error}") from None


def _environment(top: Table, environment: str) -> Table:
    """The environment's own table, with what it has from the top."""
    environments = top.table("env")
    names = list(environments.value) if environments is not None else []
    if environments is None or environment not in names:
        there = f"there are {', '.join(names)}" if names else "it has none"
        raise UsageError(f"{top.file} has no environment {environment!r}: {there}")
    own = environments.table(environment)
    assert own is not None
    own.value = {**{key: top.value[key] for key in INHERITED if key in top.value and key != "name"}, **own.value}
    if "name" not in own.value and "name" in top.value:
        own.value["name"] = f"{top.value['name']}-{environment}"
    return own


def _read(file: Path, table: Table, environment: str | None) -> dict[str, Any]:
    name = table.text("name")
    if not _NAME.fullmatch(name):
        table.refuse("name", "it must be of lower-case letters, digits, - and _, at most 63 of them")
    queues, objects = table.table("queues"), table.table("durable_objects")
    triggers, limits = table.table("triggers"), table.table("limits")
    return {
        "file": file,
        "name": name,
        "main": _main(file, table),
        "environment": environment,
        "compatibility_date": _date(table),
        "compatibility_flags": table.texts("compatibility_flags"),
        "vars": _vars(table),
        "secrets": read_secrets(file.parent, environment),
        "producers": tuple(_producer(one) for one in queues.tables("producers")) if queues is not None else (),
        "consumers": _consumers(queues) if queues is not None else (),
        "crons": _crons(triggers) if triggers is not None else (),
        "kv_namespaces": tuple(_kv_namespace(one) for one in table.tables("kv_namespaces")),
        "d1_databases": tuple(_d1_database(one) for one in table.tables("d1_databases")),
        "durable_objects": tuple(_object_binding(one) for one in objects.tables("bindings")) if objects is not None else (),
        "migrations": _migrations(table),
        "workflows": tuple(_workflow(one) for one in table.tables("workflows")),
        "services": tuple(_service(one) for one in table.tables("services")),
        "cpu_ms": limits.whole_or_none("cpu_ms", 1, CPU_MAX_MS) if limits is not None else None,
    }


def _main(file: Path, table: Table) -> Path:
    main = file.parent / table.text("main")
    if main.suffix != ".py":
        table.refuse("main", 'it must be a Python file, like "src/entry.py": Stepwell runs Workers that are written in Python')
    if not main.is_file():
        table.refuse("main", f"there is no file {main}")
    return main


def _date(table: Table) -> str:
    value = table.take("compatibility_date")
    # TOML has dates of its own, which some write without quotes.
    date = str(value) if value is not None else ""
    if value is not None and not _DATE.fullmatch(date):
        table.refuse("compatibility_date", 'it must be a date, like "2026-07-01"')
    return date


def _vars(table: Table) -> dict[str, Any]:
    given = table.table("vars")
    if given is None:
        return {}
    for name in given.value:
        value = given.take(name)
        if not _is_json(value):
            given.refuse(name, "it must be what JSON can hold: a text, a number, true or false, a list or an object of these")
    return dict(given.value)


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_json(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return value is None or isinstance(value, str | int | float)


def _producer(table: Table) -> Producer:
    return Producer(
        binding=_binding(table, "binding"),
        queue=table.text("queue"),
        delivery_delay_s=table.whole("delivery_delay", 0, DELAY_S_MAX, default=0),
    )


def _consumers(queues: Table) -> tuple[Consumer, ...]:
    found: dict[str, Consumer] = {}
    for table in queues.tables("consumers"):
        consumer = _consumer(table)
        if consumer.queue in found:
            table.refuse("queue", "the queue has a consumer above already: remove one of them")
        found[consumer.queue] = consumer
    return tuple(found.values())


def _consumer(table: Table) -> Consumer:
    queue, kind = table.text("queue"), table.text("type", default="worker")
    if kind not in ("worker", "http_pull"):
        table.refuse("type", 'it must be "worker" or "http_pull"')
    dead = table.text_or_none("dead_letter_queue")
    if dead == queue:
        table.refuse("dead_letter_queue", f'Dead letter queue for queue "{queue}" cannot be itself: name another queue')
    return Consumer(
        queue=queue,
        is_pulled=kind == "http_pull",
        max_batch_size=table.whole_or_none("max_batch_size", 0, BATCH_SIZE_MAX),
        max_batch_timeout_s=table.whole_or_none("max_batch_timeout", 0, BATCH_TIMEOUT_MS_MAX // 1000),
        max_retries=table.whole_or_none("max_retries", 0, MAX_RETRIES_MAX),
        retry_delay_s=table.whole_or_none("retry_delay", 0, DELAY_S_MAX),
        max_concurrency=table.whole_or_none("max_concurrency", 1, CONCURRENCY_MAX),
        dead_letter_queue=dead,
        visibility_timeout_ms=table.whole_or_none("visibility_timeout_ms", 0, VISIBILITY_MS_MAX),
    )


def _crons(triggers: Table) -> tuple[str, ...]:
    lines = triggers.texts("crons")
    for line in lines:
        try:
            CloudflareCron(line)
        except ProtocolError as error:
            triggers.refuse("crons", str(error))
        if lines.count(line) > 1:
            triggers.refuse("crons", f"{line!r} is there twice: remove one")
    return lines


def _kv_namespace(table: Table) -> KvNamespace:
    binding = _binding(table, "binding")
    table.take("preview_id")
    # Without an id wrangler makes one when it deploys; here the binding's name serves.
    return KvNamespace(binding=binding, id=table.text("id", default=binding))


def _d1_database(table: Table) -> D1Database:
    binding = _binding(table, "binding")
    name = table.text("database_name", default=binding)
    table.take("preview_database_id")
    return D1Database(
        binding=binding,
        name=name,
        id=table.text("database_id", default=name),
        migrations_dir=table.text("migrations_dir", default="migrations"),
        migrations_table=table.text("migrations_table", default="d1_migrations"),
    )


def _object_binding(table: Table) -> DurableObjectBinding:
    return DurableObjectBinding(
        binding=_binding(table, "name"), class_name=table.text("class_name"), script=table.text_or_none("script_name")
    )


def _migrations(table: Table) -> tuple[Migration, ...]:
    found: dict[str, Migration] = {}
    for one in table.tables("migrations"):
        tag = one.text("tag")
        if tag in found:
            one.refuse("tag", "a migration above has this tag: each tag is made once, so give this one another")
        found[tag] = Migration(
            tag=tag,
            new_classes=one.texts("new_classes"),
            new_sqlite_classes=one.texts("new_sqlite_classes"),
            renamed_classes=tuple(Renamed(before=pair.text("from"), after=pair.text("to")) for pair in one.tables("renamed_classes")),
            deleted_classes=one.texts("deleted_classes"),
        )
    return tuple(found.values())


def _workflow(table: Table) -> WorkflowBinding:
    return WorkflowBinding(
        binding=_binding(table, "binding"),
        name=table.text("name"),
        class_name=table.text("class_name"),
        script=table.text_or_none("script_name"),
    )


def _service(table: Table) -> ServiceBinding:
    return ServiceBinding(binding=_binding(table, "binding"), service=table.text("service"), entrypoint=table.text_or_none("entrypoint"))


def _binding(table: Table, key: str) -> str:
    name = table.text(key)
    if not _BINDING.fullmatch(name):
        table.refuse(key, "it must be a name that Python can read from env: letters, digits and _, not beginning with a digit")
    return name


def _checked(project: Project, table: Table) -> Project:
    """The project, where each name in `env` stands for one thing, and each of its classes of objects is made by a migration."""
    taken: dict[str, str] = dict.fromkeys(project.vars, "vars")
    for kind, names in _bindings(project):
        for name in names:
            other = taken.setdefault(name, kind)
            if other != kind or list(names).count(name) > 1:
                raise UsageError(f"{table.at(kind)} and {table.at(other)} both bind {name!r}: give one of them another name")
    made = project.object_classes
    for binding in project.durable_objects:
        if binding.script in (None, project.name) and project.migrations and binding.class_name not in made:
            raise UsageError(
                f"{table.at('durable_objects.bindings')} binds class {binding.class_name!r}, which no migration makes: "
                f"add it to new_sqlite_classes of a migration"
            )
    return project


def _bindings(project: Project) -> Iterable[tuple[str, list[str]]]:
    kinds: dict[str, Sequence[Any]] = {
        "queues.producers": project.producers,
        "kv_namespaces": project.kv_namespaces,
        "d1_databases": project.d1_databases,
        "durable_objects.bindings": project.durable_objects,
        "workflows": project.workflows,
        "services": project.services,
    }
    return [(kind, [one.binding for one in bound]) for kind, bound in kinds.items()]


def _left(table: Table) -> list[str]:
    """What of the file nothing is made of."""
    told = []
    for key in table.unread():
        first = key.partition(".")[0].partition("[")[0]
        if first in HARMLESS.split():
            told.append(f"{table.at(key)} is about deploying to Cloudflare and changes nothing here")
        elif first in NOT_HERE.split():
            told.append(f"{table.at(key)} has no counterpart here: what it binds is missing from env")
        else:
            near = difflib.get_close_matches(first, _READ, 1) if "." not in key else []
            told.append(f"{table.at(key)} is not known here and ignored" + (f"; is {near[0]} meant?" if near else ""))
    return told
