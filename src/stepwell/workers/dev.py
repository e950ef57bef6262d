"""`stepwell workers dev`: a server that runs the handlers of some projects, each kind of them in processes of its own.

Every project has an address for its `fetch`, whose socket is opened here and inherited, so that requests wait while processes are changed.
Changes of code restart the processes of their project alone; changes of its wrangler file also begin and end kinds of them.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import watchfiles

from stepwell.engine.inputs import AppRemoved
from stepwell.engine.inputs_primitives import QueueSet
from stepwell.engine.registry import Settings
from stepwell.errors import UsageError
from stepwell.protocol.queues import MAX_RETRIES_DEFAULT, VISIBILITY_MS_DEFAULT
from stepwell.runtime.node import Node
from stepwell.server.host import HostOptions, bound, run_host, shown_host
from stepwell.server.programs import Program, Programs, Surroundings
from stepwell.workers.config import Project
from stepwell.workers.limits import Limits, cloudflares
from stepwell.workers.migrations import migrate
from stepwell.workers.objects.classes import object_kinds, stored_classes
from stepwell.workers.part import VARIABLE, Kind, Part, app_name
from stepwell.workers.wrangler import check_together, read_project

PORT, SERVER_PORT = 8787, 8288
NICENESS = 19
"""What is added to that of all processes but those of requests: where there is too little of the processor, requests come first."""
WATCHED = (".py", ".sql", "wrangler.toml", "wrangler.json", "wrangler.jsonc", ".dev.vars", ".env", ".env.local")
DRAIN_S = 5.0
"""How long a kind of handlers that a project has no more may finish what it has in hand."""
BACKGROUND: tuple[Kind, ...] = ("queue", "scheduled", "workflows")


class DevOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `stepwell workers dev` is told. `server_port` `None` is the usual one where it is free; `limits` `None`: Cloudflare's own."""

    places: tuple[Path, ...]
    environment: str | None = None
    host: str = "127.0.0.1"
    port: int = PORT
    server_port: int | None = None
    db: Path | None = None
    children: int = 2
    limits: Limits | None = Limits()


class _Site:
    """A project with the place it was given by, and its address."""

    def __init__(self, place: Path, project: Project, listener: socket.socket, host: str) -> None:
        self.place, self.project, self.listener = place, project, listener
        self.url = f"http://{shown_host(host)}:{listener.getsockname()[1]}"


class Dev:
    """The projects, and the programs that they are at the moment."""

    def __init__(self, options: DevOptions, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        projects = [read_project(place, options.environment) for place in options.places]
        check_together(projects)
        self._sites: list[_Site] = []
        for nth, (place, project) in enumerate(zip(options.places, projects, strict=True)):
            self._tell(project)
            port = options.port + nth if options.port else 0
            self._sites.append(_Site(place, project, bound(options.host, port), options.host))
        self._token = secrets.token_hex(16)

    def host_options(self) -> HostOptions:
        """The server around them."""
        options, first = self._options, self._sites[0].project
        return HostOptions(
            kind="dev",
            db=options.db or first.folder / ".stepwell" / "stepwell.db",
            host=options.host,
            port=self._server_port(),
            programs=tuple(program for site in self._sites for program in self._programs(site)),
            settings=Settings(),
            connect_port=0,
            prepare=self._prepare,
            tend=self._tend,
            ready=self._ready,
        )

    def _server_port(self) -> int:
        """The port that was asked for; else the usual one, or a free one where that is taken or the others are free ones too."""
        if self._options.server_port is not None or self._options.port == 0:
            return self._options.server_port or 0
        try:
            bound(self._options.host, SERVER_PORT).close()
        except UsageError:
            return 0
        return SERVER_PORT

    def _ready(self, address: str, gateway: str) -> Sequence[str]:
        sites = [f"{site.project.name}: {site.url}" for site in self._sites]
        return (f"Page: {address}", *sites, f"Stepwell is ready: {self._sites[0].url}")

    def _tell(self, project: Project) -> None:
        for line in project.ignored:
            self._say(f"Note: {line}")

    # Programs.

    def _programs(self, site: _Site) -> list[Program]:
        """A program for each kind of handlers that the project's file asks for; `fetch` always, for ticks by hand go there too."""
        project = site.project
        kinds: list[Kind] = ["fetch"]
        if any(not consumer.is_pulled for consumer in project.consumers):
            kinds.append("queue")
        if project.crons:
            kinds.append("scheduled")
        if any(one.script in (None, project.name) for one in project.workflows):
            kinds.append("workflows")
        if stored_classes(project):
            kinds.append("objects")
        return [self._program(site, kind) for kind in kinds]

    def _program(self, site: _Site, kind: Kind) -> Program:
        project, is_fetch = site.project, kind == "fetch"
        limits = self._options.limits
        part = Part(
            file=str(project.file.resolve()),
            kind=kind,
            environment=project.environment,
            socket=site.listener.fileno() if is_fetch else -1,
            services={one.project.name: one.url for one in self._sites},
            objects={one.project.name: object_kinds(one.project) for one in self._sites},
            token=self._token,
            limits=cloudflares(project.cpu_ms) if limits is None else limits,
        )
        return Program(
            target="stepwell.workers.project:app",
            name=app_name(project.name, kind),
            # A tick may not be kept from beginning by another one; beyond that there is little to do at once.
            children=1 if kind == "scheduled" else self._options.children,
            surroundings=Surroundings(
                environment={VARIABLE: msgspec.json.encode(part).decode()},
                niceness=NICENESS if kind in BACKGROUND else 0,
                sockets=(site.listener.fileno(),) if is_fetch else (),
            ),
        )

    # Beside the server.

    async def _prepare(self, node: Node) -> None:
        """Before anything runs: forget what an earlier start had and this one has not, and bring the databases up to date."""
        names = {program.name for site in self._sites for program in self._programs(site)}
        await self._forget(node, [app.name for app in node.registry.apps.values() if app.driver == "process" and app.name not in names])
        for site in self._sites:
            await migrate(node.databases, site.project, self._say)
            await set_pulled(node, site.project)

    async def _forget(self, node: Node, apps: Sequence[str]) -> None:
        """Nothing is begun for these apps any more: their queues keep what is sent to them."""
        for name in apps:
            app = node.registry.apps.get(name)
            if app is not None and not app.archived:
                await node.submit(AppRemoved(name))

    async def _tend(self, node: Node, programs: Programs) -> None:
        """Restart what changes, for as long as the server runs."""
        async with asyncio.TaskGroup() as group:
            for site in self._sites:
                group.create_task(self._watch(site, node, programs))

    async def _watch(self, site: _Site, node: Node, programs: Programs) -> None:
        suffixes = (*WATCHED, *(f"{name}.{site.project.environment}" for name in (".dev.vars", ".env") if site.project.environment))

        def concerns(change: watchfiles.Change, path: str) -> bool:
            return path.endswith((*suffixes, str(site.project.file))) and watchfiles.DefaultFilter()(change, path)

        async for changes in watchfiles.awatch(site.project.folder, watch_filter=concerns):
            names = ", ".join(sorted({Path(path).name for _, path in changes})[:3])
            try:
                if await self._restart(site, node, programs):
                    self._say(f"{names} changed: {site.project.name} runs anew")
            except UsageError as error:
                self._say(f"{names} changed, and {site.project.name} goes on as it was: {error}")

    async def _restart(self, site: _Site, node: Node, programs: Programs) -> bool:
        """Run a project as it is now. Says whether all of it does."""
        before, project = site.project, read_project(site.place, self._options.environment)
        check_together([project if one is site else one.project for one in self._sites])
        if project.name != before.name:
            raise UsageError(f"its name is {project.name!r} now: start anew for another name, by which others know its state")
        await migrate(node.databases, project, self._say)
        await set_pulled(node, project)
        if project.ignored != before.ignored:
            self._tell(project)
        site.project = project
        wanted = {program.name: program for program in self._programs(site)}
        mine = [name for name in programs.names if name.rpartition(".")[0] == project.name]
        gone = [name for name in mine if name not in wanted]
        await self._forget(node, gone)
        for name in gone:
            await programs.remove(name, DRAIN_S)
        done = True
        for name, program in wanted.items():
            if name in mine:
                done = await programs.reload(name) and done
            else:
                await programs.add(program)
            if not done:
                # What is wrong has been said, and would be wrong again.
                break
        return done


async def set_pulled(node: Node, project: Project) -> None:
    """Keep the queues that are pulled over HTTP as the project says; one that is delivered to tells this with its app."""
    for consumer in project.consumers:
        if consumer.is_pulled:
            visibility_ms, retries = consumer.visibility_timeout_ms, consumer.max_retries
            told = QueueSet(
                queue=consumer.queue,
                visibility_ms=VISIBILITY_MS_DEFAULT if visibility_ms is None else visibility_ms,
                max_retries=MAX_RETRIES_DEFAULT if retries is None else retries,
                dead_letter=consumer.dead_letter_queue or "",
            )
            await node.submit(told)


async def run(options: DevOptions, say: Callable[[str], None] = print) -> None:
    """Serve until SIGINT or SIGTERM. Raises `UsageError` for what cannot be served."""
    dev = Dev(options, say)
    await run_host(dev.host_options(), say)
