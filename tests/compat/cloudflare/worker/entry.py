"""What `scenarios.py` describes, done by a Python Worker: `../worker.mjs` does the same line by line, so a change here is a change there.

`POST /run/{id}` does a scenario's steps and answers with the result of each. What happens by itself (batches, alarms) and the order of
things are printed, a line of JSON each after the word "observed": printing opens no gate, and needs no storage of what is observed.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Iterable
from typing import Any
from urllib.parse import urlsplit

from workers import DurableObject, Response, WorkerEntrypoint

LONG = 1000
NAMES = {"Exception": "Error", "BindingError": "Error", "ValueError": "RangeError", "JSONDecodeError": "SyntaxError"}
"""Python's exceptions by the names that JavaScript has for what they stand for."""
TYPES = {"Error": Exception, "TypeError": TypeError, "RangeError": ValueError}
known: dict[str, Any] = {}
forgotten: set[asyncio.Future[Any]] = set()


def now_ms() -> int:
    return int(time.time() * 1000)


def record(**fields: Any) -> None:
    print(f"observed {json.dumps({'at': now_ms(), **fields})}", flush=True)


def binding(kind: str, id: str) -> str:
    return f"{kind}_{id.upper().replace('-', '_')}"


def scenario_of(env: Any, id: str) -> Any:
    """The scenario of an id."""
    if not known:
        known.update({one["id"]: one for one in json.loads(env.SCENARIOS)})
    return known.get(id)


def plain(value: Any) -> Any:
    """A value as scenarios write it, from one that a binding gave."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": list(bytes(value))}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, str) and len(value) > LONG:
        return f"{len(value)} characters"
    if isinstance(value, float):
        # JavaScript has one kind of number, and its JSON no infinity.
        return (int(value) if value.is_integer() else value) if math.isfinite(value) else None
    return value


def real(value: Any) -> Any:
    """The other way round: bytes are written as `{"bytes": [1, 2]}`, a long text as `{"repeat": ["x", 2]}`."""
    if isinstance(value, list):
        return [real(one) for one in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("bytes"), list):
        return bytes(value["bytes"])
    if isinstance(value.get("repeat"), list):
        return value["repeat"][0] * value["repeat"][1]
    return {name: real(one) for name, one in value.items()}


def failure(kind: str, message: str) -> Exception:
    """An error to be thrown."""
    return TYPES.get(kind, type(kind, (Exception,), {}))(message)


def shown(error: Exception) -> dict[str, Any]:
    name = type(error).__name__
    return {"error": {"name": NAMES.get(name, name), "message": str(error)}}


async def outcome(awaitable: Awaitable[Any]) -> dict[str, Any]:
    """What an awaitable comes to, as a value."""
    try:
        return {"value": plain(await awaitable)}
    except Exception as error:
        return shown(error)


def name_of(body: Any) -> str:
    """A message's name: that in its body, or its body as text."""
    if isinstance(body, str):
        return plain(body)
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body).decode()
    return body["name"] if isinstance(body, dict) and "name" in body else json.dumps(body)


def options_of(args: Iterable[Any]) -> dict[str, Any]:
    """Options are the last argument in JavaScript and keywords here."""
    return next((one for one in args if isinstance(one, dict)), {})


class Default(WorkerEntrypoint):
    async def fetch(self, request: Any) -> Response:
        id = urlsplit(request.url).path[len("/run/") :]
        scenario = scenario_of(self.env, id)
        if scenario is None:
            return Response("ready")
        client = Client(self.env, scenario)
        record(scenario=id, kind="start")
        return Response.from_json(await client.all(scenario["steps"]))

    async def queue(self, batch: Any, env: Any, ctx: Any) -> None:
        dead = batch.queue.endswith("-dead")
        scenario = scenario_of(self.env, batch.queue.removesuffix("-dead") if dead else batch.queue)
        messages = [
            {
                "name": name_of(message.body),
                "attempts": message.attempts,
                "id": message.id,
                "timestamp": message.timestamp.timestamp(),
                "body": plain(message.body),
            }
            for message in batch.messages
        ]
        record(scenario=scenario["id"], kind="batch", dead=dead, messages=messages)
        try:
            attempt = max(message["attempts"] for message in messages)
            decisions = [] if dead else scenario["decisions"]
            await self.decide(batch, scenario, decisions[attempt - 1] if attempt <= len(decisions) else [])
        finally:
            record(scenario=scenario["id"], kind="batch ends", dead=dead)

    async def decide(self, batch: Any, scenario: Any, ops: Any) -> None:
        for op, *args in ops:
            message = next((one for one in batch.messages if args and name_of(one.body) == args[0]), None)
            match op:
                case "ack":
                    if message is not None:
                        message.ack()
                case "retry":
                    if message is not None:
                        message.retry(**({} if len(args) < 2 else {"delaySeconds": args[1]}))
                case "ackAll":
                    batch.ackAll()
                case "retryAll":
                    batch.retryAll(**({} if not args else {"delaySeconds": args[0]}))
                case "throw":
                    raise failure(*args)
                case "sleep":
                    await asyncio.sleep(args[0] / 1000)
                case "waitUntil":
                    self.ctx.waitUntil(self.decide(batch, scenario, args[0]))
                case "forget":
                    forgotten.add(asyncio.ensure_future(self.decide(batch, scenario, args[0])))
                case "mark":
                    record(scenario=scenario["id"], kind="mark", text=args[0])
                case "metrics":
                    metrics = batch.metadata.metrics
                    text = f"{metrics.backlogCount} messages, {metrics.backlogBytes} bytes are left"
                    record(scenario=scenario["id"], kind="mark", text=text)
                case _:
                    raise ValueError(f"a consumer knows no {op}")


class Client:
    """Whoever sends, calls, and asks KV and D1."""

    def __init__(self, env: Any, scenario: Any) -> None:
        self.env = env
        self.scenario = scenario
        self.calls = 0
        self.stubs: dict[str, Any] = {}

    async def all(self, steps: Any) -> list[Any]:
        """One step after the other; an error does not keep the next from being done."""
        return [await outcome(self.step(step)) for step in steps]

    def bound(self, kind: str) -> Any:
        return getattr(self.env, binding(kind, self.scenario["id"]))

    async def step(self, whole: Any) -> Any:
        op, *args = whole
        match op:
            case "sleep":
                return await asyncio.sleep(args[0] / 1000)
            case "together":
                return await asyncio.gather(*(outcome(self.step(step)) for step in args[0]))
            case "send":
                body, options = args[0], options_of(args[1:])
                record(scenario=self.scenario["id"], kind="sent", names=[name_of(real(body))])
                await self.bound("QUEUE").send(real(body), **options)
                return None
            case "sendBatch":
                messages, options = args[0], options_of(args[1:])
                record(scenario=self.scenario["id"], kind="sent", names=[name_of(real(message["body"])) for message in messages])
                await self.bound("QUEUE").sendBatch(real(messages), **options)
                return None
            case "call":
                self.calls += 1
                return await self.stub(args[0]).run(args[0], f"call {self.calls}", args[1])
            case "held":
                # The same stub again and again.
                if args[0] not in self.stubs:
                    self.stubs[args[0]] = self.stub(args[0])
                self.calls += 1
                return await self.stubs[args[0]].run(args[0], f"call {self.calls}", args[1])
            case "rpc":
                return await getattr(self.stub(args[0]), args[1])(*args[2])
            case "same id":
                one, other = (self.env.ACTOR.idFromName(name).toString() for name in args)
                return [one == other, len(one) == 64 and set(one) <= set("0123456789abcdef")]
            case "id of":
                self.env.ACTOR.idFromString(args[0])
                return None
            case "kv":
                return await getattr(self.bound("KV"), args[0])(*args[1], **args[2])
            case "kv list":
                # Cursors are the store's own: all pages are followed.
                pages: list[Any] = []
                cursor = None
                while len(pages) < 9:
                    page = await self.bound("KV").list(**args[0], **({} if cursor is None else {"cursor": cursor}))
                    pages.append([[key["name"] for key in page["keys"]], page["list_complete"]])
                    cursor = page.get("cursor")
                    if cursor is None:
                        break
                return pages
            case "kv keys":
                return (await self.bound("KV").list(**args[0]))["keys"]
            case "d1":
                method, sql, bindings, *rest = args
                prepared = self.bound("D1").prepare(sql)
                statement = prepared if bindings is None else prepared.bind(*real(bindings))
                return told(await getattr(statement, method)(*(one for one in rest if not isinstance(one, dict)), **options_of(rest)))
            case "d1 batch":
                statements = [self.bound("D1").prepare(sql).bind(*real(bindings)) for sql, bindings in args[0]]
                return [told(one) for one in await self.bound("D1").batch(statements)]
            case "d1 exec":
                return (await self.bound("D1").exec(args[0]))["count"]
            case _:
                raise ValueError(f"a client knows no {op}")

    def stub(self, name: str) -> Any:
        return self.env.ACTOR.getByName(f"{self.scenario['id']}/{name}")


def told(result: Any) -> Any:
    """Of D1's results, what is the same wherever and however fast it runs."""
    if not isinstance(result, dict) or "meta" not in result:
        return result
    meta = {name: result["meta"][name] for name in ("changes", "last_row_id", "changed_db")}
    return {"success": result["success"], "results": result["results"], "meta": meta}


class Actor(DurableObject):
    def __init__(self, ctx: Any, env: Any) -> None:
        super().__init__(ctx, env)
        id, name = self.ctx.id.name.split("/")
        self.scenario = scenario_of(self.env, id)
        self.name = name
        self.fields: dict[str, Any] = {}
        self.set: int | None = None
        self.runs = 0
        if self.scenario["setup"]:
            self.ctx.blockConcurrencyWhile(lambda: self.all(self.scenario["setup"], self.ctx.storage, None))

    def mark(self, text: str) -> None:
        record(scenario=self.scenario["id"], kind="mark", text=text)

    async def run(self, object: str, call: str, ops: Any) -> list[Any]:
        self.mark(f"{call} begins")
        try:
            return await self.all(ops, self.ctx.storage, None)
        finally:
            self.mark(f"{call} ends")

    def echo(self, *values: Any) -> list[Any]:
        return list(values)

    def _under(self) -> str:
        return "under"

    async def alarm(self, info: Any) -> None:
        told = {"scenario": self.scenario["id"], "object": self.name}
        alarms = self.scenario["alarms"]
        ops = alarms[min(self.runs, len(alarms) - 1)] if alarms else []
        self.runs += 1
        record(**told, kind="alarm", retryCount=info.retryCount, isRetry=info.isRetry)
        self.mark("alarm begins")
        try:
            record(**told, kind="alarm result", value=plain(await self.all(ops, self.ctx.storage, info)))
        except Exception as error:
            record(**told, kind="alarm result", **shown(error))
            raise
        finally:
            self.mark("alarm ends")

    async def all(self, ops: Any, storage: Any, info: Any) -> list[Any]:
        """One after the other, up to the first error."""
        return [plain(await self.step(op, storage, info)) for op in ops]

    def begin(self, whole: Any, storage: Any) -> Any:
        """A call of storage, made now, to be awaited by whoever wants to: a promise does not wait for its `await` to begin."""
        op, *args = whole
        if op == "list":
            return storage.list(**options_of(args))
        if op == "setAlarm":
            self.set = now_ms() + args[0]
            return storage.setAlarm(self.set)
        return getattr(storage, op)(*real(args))

    async def step(self, whole: Any, storage: Any, info: Any) -> Any:
        op, *args = whole
        match op:
            case "get" | "put" | "delete" | "list" | "deleteAll" | "deleteAlarm" | "setAlarm":
                return await self.begin(whole, storage)
            case "sync":
                return await self.ctx.storage.sync()
            case "setAlarm at":
                return await storage.setAlarm(args[0])
            case "getAlarm":
                at = await storage.getAlarm()
                return None if at is None else "as set" if at == self.set else "another time"
            case "info":
                return [info.retryCount, info.isRetry, "as set" if info.scheduledTime == self.set else "another time"]
            case "add":
                key, number, wait = (*args, 0)[:3]
                found = await storage.get(key)
                before = 0 if found is None else found
                if wait:
                    await asyncio.sleep(wait / 1000)
                await storage.put(key, before + number)
                return before + number
            case "sleep":
                return await asyncio.sleep(args[0] / 1000)
            case "throw":
                raise failure(*args)
            case "catch":
                return await outcome(self.all(args[0], storage, info))
            case "together":
                return await asyncio.gather(*(self.step(one, storage, info) for one in args[0]))
            case "unawaited":
                forgotten.add(asyncio.ensure_future(self.begin(args[0], storage)))
                return None
            case "waitUntil":
                self.ctx.waitUntil(self.all(args[0], storage, info))
                return None
            case "block":
                return await self.ctx.blockConcurrencyWhile(lambda: self.all(args[0], storage, info))
            case "transaction":
                return await storage.transaction(lambda handle: self.all(args[0], handle, info))
            case "transaction and storage":
                # What is done without the handle.
                return await storage.transaction(lambda handle: self.all(args[0], storage, info))
            case "rollback":
                return storage.rollback()
            case "transactionSync":
                return self.ctx.storage.transactionSync(lambda: [plain(self.sync(one)) for one in args[0]])
            case "field":
                if len(args) > 1:
                    self.fields[args[0]] = args[1]
                return self.fields.get(args[0])
            case "abort":
                return self.ctx.abort(args[0])
            case "name":
                return self.ctx.id.name
            case _:
                return self.sync(whole)

    def sync(self, whole: Any) -> Any:
        """What has no await in it, so that it may stand in a `transactionSync`."""
        op, *args = whole
        kv, sql = self.ctx.storage.kv, self.ctx.storage.sql
        match op:
            case "mark":
                return self.mark(args[0])
            case "kv":
                return dict(kv.list(**options_of(args[1:]))) if args[0] == "list" else getattr(kv, args[0])(*real(args[1:]))
            case "sql":
                return sql.exec(args[0], *real(args[1:])).toArray()
            case "sql one":
                return sql.exec(args[0], *real(args[1:])).one()
            case "sql raw":
                cursor = sql.exec(args[0], *real(args[1:]))
                return [list(cursor.columnNames), [list(row) for row in cursor.raw()]]
            case "sql twice":
                cursor = sql.exec(args[0])
                return [cursor.toArray(), cursor.toArray()]
            case "sql counts":
                cursor = sql.exec(args[0], *real(args[1:]))
                cursor.toArray()
                return [cursor.rowsRead, cursor.rowsWritten]
            case "throw now":
                raise failure(*args)
            case "catch now":
                try:
                    return [plain(self.sync(one)) for one in args[0]]
                except Exception as error:
                    return shown(error)
            case "transactionSync":
                return self.ctx.storage.transactionSync(lambda: [plain(self.sync(one)) for one in args[0]])
            case _:
                raise ValueError(f"an actor knows no {op}")
