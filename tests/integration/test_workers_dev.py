"""`stepwell workers dev` on projects: what their handlers are given, what becomes of what they answer, what changes while it runs."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

from stepwell.workers.dev import NICENESS
from tests.support.processes import Process, ask, running, until
from tests.support.workers import WorkersDev, asked, project

HEAD = """
name = "{name}"
main = "src/entry.py"
compatibility_date = "2026-07-01"
compatibility_flags = ["python_workers"]
"""

WEB = """
import asyncio, json
from workers import Response, WorkerEntrypoint, fetch

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "echo?a=1%202":
            told = {"method": request.method, "url": request.url, "kind": request.headers.get("Content-Type"), "body": await request.text()}
            return Response.json(told, status=201, headers=[("x-a", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")])
        if path == "env":
            return Response.json({"name": self.env.NAME, "deep": self.env.DEEP.list, "secret": self.env.SECRET})
        if path == "stream":
            async def parts():
                for n in range(3):
                    yield f"part {n}\\n"
                    await asyncio.sleep(0)
            return Response(parts(), headers={"content-type": "text/plain"})
        if path == "endless":
            async def ticks():
                try:
                    while True:
                        yield "tick\\n"
                        await asyncio.sleep(0.01)
                finally:
                    print("nobody listens")
            return Response(ticks(), headers={"content-type": "text/event-stream"})
        if path == "gzip":
            return Response("packed " * 100, headers={"content-encoding": "gzip"})
        if path == "error":
            raise ValueError("no such luck")
        if path == "nothing":
            return None
        if path == "burns":
            while True:
                pass
        if path == "later":
            self.ctx.waitUntil(self.later())
            return Response(None, status=204)
        return Response("?", status=404)

    async def later(self):
        print("later is done")

    async def scheduled(self, controller, env, ctx):
        print(f"tick {controller.cron!r} {controller.scheduledTime}")
        if controller.cron == "never":
            controller.noRetry()
        if controller.cron:
            raise RuntimeError("the tick fails")
"""


def test_requests_and_responses(tmp_path: Path) -> None:
    """Method, address, headers and body get there; status, headers, cookies, streams and compression come back; errors are told."""
    web = project(tmp_path / "web", HEAD.format(name="web") + '[vars]\nNAME = "n"\nDEEP = { list = [1, 2] }\n', WEB)
    (web / ".dev.vars").write_text('SECRET="s-1"\n')
    with running(WorkersDev(web, "--limit", "fetch.cpu=1s")) as server:
        request = urllib.request.Request(f"{server.url}/echo?a=1%202", data="é".encode(), headers={"content-type": "text/x"}, method="PUT")
        with urllib.request.urlopen(request) as response:
            assert response.status == 201 and response.headers["x-a"] == "1"
            assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
            assert response.headers["content-type"] == "application/json"
            told = {"method": "PUT", "url": f"{server.url}/echo?a=1%202", "kind": "text/x", "body": "é"}
            assert json.load(response) == told
        assert server.get("/env") == {"name": "n", "deep": [1, 2], "secret": "s-1"}
        with urllib.request.urlopen(f"{server.url}/stream") as response:
            assert response.headers["transfer-encoding"] == "chunked" and response.read() == b"part 0\npart 1\npart 2\n"
        with urllib.request.urlopen(f"{server.url}/endless") as response:
            assert response.read(5) == b"tick\n"
        server.says("nobody listens")
        with urllib.request.urlopen(f"{server.url}/gzip") as response:
            assert gzip.decompress(response.read()) == b"packed " * 100
        status, text = asked(f"{server.url}/error")
        assert status == 500 and "ValueError: no such luck" in text and "entry.py" in text
        assert asked(f"{server.url}/nothing")[0] == 500
        status, text = asked(f"{server.url}/burns")
        assert status == 503 and "used more than 1 s of the processor" in text
        assert asked(f"{server.url}/later") == (204, "")
        server.says("later is done")
        (web / ".dev.vars").write_text('SECRET="s-2"\n')
        server.says(".dev.vars changed: web runs anew")
        until(lambda: server.get("/env")["secret"] == "s-2", "the new secret is there")


def test_ticks_by_hand(tmp_path: Path) -> None:
    """With a schedule they are runs of the processes of ticks, without one they are done on the spot; the answers are the same."""
    plain = project(tmp_path / "plain", HEAD.format(name="plain"), WEB)
    crons = project(tmp_path / "crons", HEAD.format(name="crons") + '[triggers]\ncrons = ["0 0 1 1 *", "0 0 * * 6L"]\n', WEB)
    none = project(
        tmp_path / "none", HEAD.format(name="none"), "from workers import WorkerEntrypoint\nclass Default(WorkerEntrypoint): ...\n"
    )
    with running(WorkersDev(tmp_path, str(plain), str(crons), str(none))) as server:
        for name in ("plain", "crons"):
            url = server.urls[name]
            assert asked(f"{url}/cdn-cgi/handler/scheduled?time=1700000000000") == (200, "ok")
            server.says("tick '' 1700000000000")
            assert asked(f"{url}/__scheduled?format=json") == (200, {"outcome": "ok", "noRetry": False})
            assert asked(f"{url}/cdn-cgi/local/scheduled?cron=*+*+*+*+*", b"") == (500, "exception")
            server.says("tick '* * * * *'")
            told = asked(f"{url}/cdn-cgi/handler/scheduled?cron=never&format=json")
            assert told == (500, {"outcome": "exception", "noRetry": True})
            status, text = asked(f"{url}/cdn-cgi/handler/scheduled?time=soon")
            assert status == 500 and "not a valid Date" in text
        none_told = asked(f"{server.urls['none']}/cdn-cgi/handler/scheduled?format=json")
        assert none_told == (500, {"outcome": "exception", "noRetry": True})
        functions = {one["id"]: one for one in ask(f"{server.page}/api/functions")["functions"]}
        assert functions["crons.scheduled-scheduled"]["triggers"] == ["CLOUDFLARE 0 0 1 1 *", "CLOUDFLARE 0 0 * * 6L"]
        runs = ask(f"{server.page}/api/runs?function=crons.scheduled-scheduled")["runs"]
        assert sorted(run["status"] for run in runs) == ["completed", "completed", "failed", "failed"]


FRONT = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        auth, admin = self.env.AUTH, self.env.ADMIN
        answer = await auth.fetch("https://auth/check?x=1", method="POST", body="token")
        told = await auth.who({"names": ["a"], "at": b"\\x00"}, loud=True)
        failed = []
        for call in (auth.broken, auth.nothing, auth._hidden, self.env.GONE.any):
            try:
                await call()
            except Exception as error:
                failed.append([type(error).__name__, str(error)])
        return Response.json({
            "status": answer.status, "text": await answer.text(), "told": told, "admin": await (await admin.fetch(request)).text(),
            "passed": (await auth.passed(Response("inner", status=202, headers={"x-i": "1"}))).status, "failed": failed,
        })
"""
AUTH = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(f"{request.method} {request.url} {await request.text()}", status=403)

    async def who(self, told, loud=False):
        return {"name": told.names[0].upper() if loud else told.names[0], "at": list(told.at)}

    async def broken(self):
        raise KeyError("k")

    async def passed(self, response):
        assert await response.text() == "inner" and response.headers["x-i"] == "1"
        return Response("outer", status=response.status + 1)

    async def _hidden(self): ...

class Admin(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("admin")
"""


def test_services(tmp_path: Path) -> None:
    """`fetch` and methods of another project, of an entrypoint of its own too; what it raises comes back by its type."""
    bound = '[[services]]\nbinding = "{}"\nservice = "{}"\n'
    services = bound.format("AUTH", "auth") + bound.format("ADMIN", "auth") + 'entrypoint = "Admin"\n' + bound.format("GONE", "gone")
    front = project(tmp_path / "front", HEAD.format(name="front") + services, FRONT)
    auth = project(tmp_path / "auth", HEAD.format(name="auth"), AUTH)
    with running(WorkersDev(tmp_path, str(front), str(auth))) as server:
        told = server.get("/")
        assert (told["status"], told["text"]) == (403, "POST https://auth/check?x=1 token")
        assert told["told"] == {"name": "A", "at": [0]} and told["admin"] == "admin" and told["passed"] == 203
        assert told["failed"][0] == ["KeyError", "\"'k'\""]
        assert [name for name, _ in told["failed"][1:]] == ["TypeError", "TypeError", "BindingError"]
        assert "'gone' does not run" in told["failed"][3][1]
        # Nobody but the projects themselves calls methods.
        assert asked(f"{server.urls['auth']}/cdn-cgi/stepwell/rpc", b"x", headers={"x-stepwell-token": ""})[0] == 403


QUEUE = """
import json
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        for name in request.url.rpartition("/")[2].split(","):
            await self.env.JOBS.send({"name": name})
        return Response("sent", status=202)

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            print(f"{batch.queue} has {message.body.name}, attempt {message.attempts}")
            if message.body.name == "poison":
                raise ValueError("poison")
"""
JOBS = '[[queues.producers]]\nqueue = "jobs"\nbinding = "JOBS"\n'
CONSUMER = '[[queues.consumers]]\nqueue = "jobs"\nmax_batch_timeout = 0\nmax_retries = 1\n'


def test_kinds_come_and_go_with_the_wrangler_file(tmp_path: Path) -> None:
    """A consumer more is a kind of processes more; without one the queue keeps what is sent; a file that is wrong changes nothing."""
    jobs = project(tmp_path / "jobs", HEAD.format(name="jobs") + JOBS, QUEUE)
    file = jobs / "wrangler.toml"
    with running(WorkersDev(jobs)) as server:
        assert server.post("/one") == "sent"
        file.write_text(HEAD.format(name="jobs") + JOBS + CONSUMER)
        server.says("jobs has one, attempt 1")
        file.write_text(HEAD.format(name="jobs") + JOBS + CONSUMER.replace("= 1", "= 1000"))
        server.says("jobs goes on as it was")
        assert "max_retries is 1000" in server.text()
        assert server.post("/poison") == "sent"
        server.says("jobs has poison, attempt 2")
        file.write_text(HEAD.format(name="jobs") + JOBS)
        until(lambda: "jobs.queue" not in [app["name"] for app in ask(f"{server.page}/api/apps")["apps"]], "the consumer is gone")
        assert server.post("/kept") == "sent"
        assert server.stop() == 0
    file.write_text(HEAD.format(name="jobs") + JOBS + CONSUMER)
    with running(WorkersDev(jobs)) as server:
        server.says("jobs has kept, attempt 1")
        (jobs / "src" / "entry.py").write_text("this is no Python")
        server.says("SyntaxError")
        assert server.post("/more") == "sent"
        server.says("jobs has more, attempt 1")


def test_batches_stand_back_for_requests(tmp_path: Path) -> None:
    """Processes of batches are nicer than the server, in sessions of their own, whose niceness is what the rest of the machine goes by."""
    jobs = project(tmp_path / "jobs", HEAD.format(name="jobs") + JOBS + CONSUMER, QUEUE)
    with running(WorkersDev(jobs, "--children", "1")) as server:
        own = os.getpriority(os.PRIO_PROCESS, server.popen.pid)
        children = [int(pid) for pid in Path(f"/proc/{server.popen.pid}/task/{server.popen.pid}/children").read_text().split()]
        nice = {os.getpriority(os.PRIO_PROCESS, pid) - own: pid for pid in children}
        assert sorted(nice) == [0, NICENESS]
        assert os.getsid(nice[NICENESS]) == nice[NICENESS] and os.getsid(nice[0]) == os.getsid(server.popen.pid)
        group = Path(f"/proc/{nice[NICENESS]}/autogroup")
        if group.exists():
            until(lambda: group.read_text().split()[-1] == str(NICENESS), "the session is nice, too")


PULLED = """
[[queues.consumers]]
queue = "pulled"
type = "http_pull"
visibility_timeout_ms = 5000
max_retries = 7
dead_letter_queue = "pulled-dead"
"""


def test_a_queue_that_is_pulled_is_kept_as_its_project_says(tmp_path: Path) -> None:
    """Also when the wrangler file says otherwise while it runs; what it leaves out is at its default."""
    puller = project(tmp_path / "puller", HEAD.format(name="puller") + PULLED, WEB)
    with running(WorkersDev(puller)) as server:

        def kept() -> tuple[str, int, str]:
            queue = ask(f"{server.page}/api/queues/pulled")
            return queue["visibility"], queue["max_retries"], queue["dead_letter"]

        assert kept() == ("5s", 7, "pulled-dead")
        (puller / "wrangler.toml").write_text(HEAD.format(name="puller") + PULLED.split("visibility")[0])
        until(lambda: kept() == ("30s", 3, ""), "the queue is kept as the file says now")


DATABASE = '[[d1_databases]]\nbinding = "DB"\ndatabase_name = "<the name>"\ndatabase_id = "x"\n'
ROWS = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = await self.env.DB.prepare("SELECT * FROM t ORDER BY x").all()
        return Response.json([dict(row) for row in found.results])
"""


def test_migrations_are_applied_once_in_order(tmp_path: Path) -> None:
    """Each file is done whole or not at all, and told by name where it fails."""
    rows = project(tmp_path / "rows", HEAD.format(name="rows") + DATABASE, ROWS)
    folder = rows / "migrations"
    folder.mkdir()
    (folder / "0001_t.sql").write_text("-- The table.\nCREATE TABLE t (x INTEGER);\nINSERT INTO t VALUES (1);\n")
    (folder / "0002_more.sql").write_text(
        "CREATE TRIGGER twice AFTER INSERT ON t WHEN new.x < 10 BEGIN INSERT INTO t VALUES (new.x * 10); END;\nINSERT INTO t VALUES (2);"
    )
    with running(WorkersDev(rows)) as server:
        assert server.get("/") == [{"x": 1}, {"x": 2}, {"x": 20}]
        (folder / "0003_last.sql").write_text("INSERT INTO t VALUES (30)")
        server.says("0003_last.sql")
        until(lambda: {"x": 30} in server.get("/"), "the new migration is done")
        server.stop()
    (folder / "0004_bad.sql").write_text("INSERT INTO t VALUES (40); INSERT INTO nope VALUES (1);")
    with pytest.raises(AssertionError, match=r"0004_bad\.sql.*no such table: nope"):
        WorkersDev(rows)
    (folder / "0004_bad.sql").unlink()
    with running(WorkersDev(rows)) as server:
        assert server.get("/") == [{"x": 1}, {"x": 2}, {"x": 20}, {"x": 30}]


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    """With a sentence, before anything listens for long."""
    one = project(tmp_path / "one", HEAD.format(name="one") + CONSUMER, QUEUE)
    two = tmp_path / "two"
    shutil.copytree(one, two)

    def refused(*arguments: str) -> str:
        process = Process(
            [sys.executable, "-m", "stepwell", "workers", "dev", "--port", "0", *arguments],
            tmp_path / f"{len(arguments)}.log",
        )
        with running(process):
            until(lambda: process.popen.poll() is not None, "it ends")
            assert process.popen.returncode == 2
            return process.text()

    assert "both have the name 'one'" in refused(str(one), str(two))
    assert "has none of wrangler.json" in refused(str(tmp_path))
    assert "'what' is none of fetch, queue" in refused(str(one), "--limit", "what=1s")


OBJECTS = """
from workers import DurableObject, Response, WorkerEntrypoint

class Counter(DurableObject):
    async def add(self, n=1):
        count = (await self.ctx.storage.get("count") or 0) + n
        self.ctx.storage.put("count", count)
        return {"name": self.ctx.id.name, "id": str(self.ctx.id), "count": count}

    async def fetch(self, request):
        return Response(f"{request.method} {request.url} {await request.text()}", status=203, headers={"x-name": self.ctx.id.name})

    @property
    def colour(self):
        return "red"

class Old(DurableObject):
    async def sql(self):
        return self.ctx.storage.sql.exec("SELECT 1").one()

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        counters = self.env.COUNTERS
        named = counters.get(counters.idFromName("ann"))
        first = await named.add(n=2)
        again = await counters.get(counters.idFromString(first["id"])).add()
        fresh = counters.newUniqueId()
        lone = await counters.get(fresh).add(5)
        same = await counters.get(counters.idFromString(fresh.toString())).add()
        answer = await counters.getByName("#odd").fetch("https://counter/x?y=1", method="POST", body="hello")
        failed = []
        for call in (named.nothing, named.storage, self.env.OLD.getByName("x").sql):
            try:
                await call()
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")
        return Response.json({
            "first": first, "again": again, "lone": lone, "same": same, "colour": await named.colour(), "failed": failed,
            "answer": [answer.status, answer.headers["x-name"], await answer.text()],
            "equal": counters.idFromName("ann").equals(named.id),
        })
"""
OTHER = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response.json(await self.env.THEIRS.getByName("ann").add(10))
"""
BOUND = '[[durable_objects.bindings]]\nname = "{}"\nclass_name = "{}"\n'


def test_durable_objects(tmp_path: Path) -> None:
    """Ids, stubs and `fetch`; another project's binding; what was stored is there after a restart and under a class's new name."""
    file = HEAD.format(name="objects") + BOUND.format("COUNTERS", "Counter") + BOUND.format("OLD", "Old")
    made = '[[migrations]]\ntag = "v1"\nnew_sqlite_classes = ["Counter"]\nnew_classes = ["Old"]\n'
    objects = project(tmp_path / "objects", file + made, OBJECTS)
    other = project(tmp_path / "other", HEAD.format(name="other") + BOUND.format("THEIRS", "Counter") + 'script_name = "objects"\n', OTHER)
    with running(WorkersDev(tmp_path, str(objects), str(other))) as server:
        told = server.get("/")
        assert told["first"]["name"] == "ann" and told["first"]["count"] == 2 and len(told["first"]["id"]) == 64
        assert told["again"] == {**told["first"], "count": 3}
        assert told["lone"]["name"] is None and told["lone"]["count"] == 5 and told["same"] == {**told["lone"], "count": 6}
        assert told["answer"] == [203, "#odd", "POST https://counter/x?y=1 hello"] and told["colour"] == "red" and told["equal"] is True
        assert told["failed"][0] == 'TypeError: The RPC receiver does not implement the method "nothing".'
        assert told["failed"][2].startswith("BindingError: SQL is not enabled for this Durable Object class.")
        assert server.get("/", project="other")["count"] == 13
        assert server.stop() == 0
    renamed = made + '[[migrations]]\ntag = "v2"\nrenamed_classes = [{ from = "Counter", to = "Tally" }]\n'
    project(
        objects, (file + renamed).replace('class_name = "Counter"', 'class_name = "Tally"'), OBJECTS.replace("class Counter", "class Tally")
    )
    project(other, HEAD.format(name="other") + BOUND.format("THEIRS", "Tally") + 'script_name = "objects"\n', OTHER)
    with running(WorkersDev(tmp_path, str(objects), str(other))) as server:
        assert server.get("/", project="other")["count"] == 23
        again = server.get("/")
        assert again["first"]["id"] == told["first"]["id"] and again["first"]["count"] == 25


FLOW = """
from workers import Response, WorkerEntrypoint, WorkflowEntrypoint

class Order(WorkflowEntrypoint):
    async def run(self, event, step):
        @step.do("reserve")
        async def reserve():
            print(f"reserving {event.payload.item}")
            await self.env.KV.put("reserved", event.payload.item)
            return {"item": event.payload.item}

        @step.do("ship", depends=[reserve], config={"retries": {"limit": 2, "delay": 10}})
        async def ship(reserved):
            return f"{reserved['item']} is on its way"

        shipped = await ship()
        paid = await step.wait_for_event("paid", "paid", timeout="1 hour")
        return {"shipped": shipped, "paid": paid.payload}

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        op, id = request.url.rsplit("/", 2)[1:]
        if op == "new":
            return Response.json({"id": (await self.env.ORDERS.create(id=id, params={"item": "a lamp"})).id})
        instance = await self.env.ORDERS.get(id)
        if op == "pay":
            await instance.send_event(type="paid", payload={"cents": 500})
        return Response.json({"status": await instance.status(), "reserved": await self.env.KV.get("reserved")})
"""


def test_workflows(tmp_path: Path) -> None:
    """An instance is made and asked by `env`, runs in processes of its own with the project's bindings, and waits for an event."""
    file = '[[workflows]]\nname = "orders"\nbinding = "ORDERS"\nclass_name = "Order"\n[[kv_namespaces]]\nbinding = "KV"\nid = "<ID>"\n'
    flow = project(tmp_path / "flow", HEAD.format(name="flow") + file, FLOW)
    with running(WorkersDev(flow)) as server:
        assert server.get("/new/o-1") == {"id": "o-1"}
        assert "already exists" in asked(f"{server.url}/new/o-1")[1]
        until(lambda: server.get("/look/o-1")["reserved"] == "a lamp", "the first step is done")
        assert server.get("/look/o-1")["status"]["status"] in ("running", "waiting")
        server.get("/pay/o-1")
        done = until(lambda: (told := server.get("/look/o-1")["status"])["status"] == "complete" and told, "the instance is complete")
        assert done["output"] == {"shipped": "a lamp is on its way", "paid": {"cents": 500}}
        assert server.text().count("reserving a lamp") == 1
