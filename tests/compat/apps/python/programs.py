"""What the cases run, as users of the `inngest` package write it. Each function `F` is started by the event `APP_ID/F`.

`sync.py` derives the blocking twin of this module from its text, so that there is one source for both.
"""

import asyncio
import datetime
import json
import logging
import os
import time
import typing
import urllib.request

import inngest
from inngest.experimental import ai

try:
    from inngest.experimental import realtime
except ImportError:  # of older versions
    realtime = None

APP_ID = os.environ["APP_ID"]
client = inngest.Inngest(
    app_id=APP_ID,
    api_base_url=os.environ["SERVER_URL"],
    event_api_base_url=os.environ["SERVER_URL"],
    is_production=os.environ.get("INNGEST_DEV") == "0",
    logger=logging.getLogger("app"),
)
functions: list[typing.Any] = []
assert time  # what the blocking twin rests by


def note(text: str) -> int:
    """Note a text outside the process; says how often it came."""
    request = urllib.request.Request(os.environ["NOTES_URL"] + "/note", text.encode())
    with urllib.request.urlopen(request) as response:
        return int(json.load(response)["count"])


def is_free() -> bool:
    """Waits a little for the case's leave to go on; says whether it came."""
    with urllib.request.urlopen(os.environ["NOTES_URL"] + "/gate") as response:
        return bool(json.load(response)["open"])


def event(name: str) -> str:
    """An event's name."""
    return f"{APP_ID}/{name}"


def program(fn_id: str, trigger: typing.Any = None, **options: typing.Any) -> typing.Any:
    """A function of the app. Tried once, unless it says more."""

    def add(handler: typing.Any) -> typing.Any:
        made = client.create_function(
            fn_id=fn_id, trigger=trigger or inngest.TriggerEvent(event=event(fn_id)), **{"retries": 0, **options}
        )(handler)
        functions.append(made)
        return made

    return add


def seconds(number: float) -> datetime.timedelta:
    """A duration."""
    return datetime.timedelta(seconds=number)


# Steps.


@program("whole", retries=3)
async def whole(ctx: inngest.Context) -> list[object]:
    async def one(what: str) -> dict[str, float]:
        note(what)
        return {"whole": 1, "half": 1.5}

    async def flaky() -> int:
        count = note("flaky")
        if count < 3:
            raise ValueError(f"try {count}")
        return count

    first = await ctx.step.run("first", one, "first")
    both = await ctx.group.parallel(
        (lambda: ctx.step.run("left", one, "left"), lambda: ctx.step.run("right", one, "right")),
    )
    await ctx.step.sleep("nap", datetime.timedelta(milliseconds=300))
    third = await ctx.step.run("flaky", flaky)
    sent = await ctx.step.send_event("send", inngest.Event(name=event("sent"), data={"from": "whole"}))
    return [first, list(both), third, len(sent), ctx.event.data]


@program("plain")
async def plain(ctx: inngest.Context) -> None:
    note("plain")


@program("values")
async def values(ctx: inngest.Context) -> object:
    async def same() -> object:
        return ctx.event.data["value"]

    return {"step": await ctx.step.run("same", same), "event": ctx.event.data["value"]}


@program("repeated")
async def repeated(ctx: inngest.Context) -> list[int]:
    async def again() -> int:
        return note("again")

    return [await ctx.step.run("again", again) for _ in range(3)]


@program("until")
async def until(ctx: inngest.Context) -> str:
    await ctx.step.sleep_until("until", datetime.datetime.fromtimestamp(ctx.event.data["at"], datetime.UTC))
    await ctx.step.sleep_until("past", datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    return "awake"


@program("sends")
async def sends(ctx: inngest.Context) -> list[str]:
    events = [inngest.Event(name=event("sent-many"), data={"n": n}, id=f"{ctx.run_id}-{n % 2}") for n in range(3)]
    return await ctx.step.send_event("send", events)


@program("mixed")
async def mixed(ctx: inngest.Context) -> list[object]:
    async def quick() -> str:
        note("quick")
        return "quick"

    async def bad() -> None:
        note("bad")
        raise ValueError("bad")

    async def guarded() -> object:
        try:
            return await ctx.step.run("bad", bad)
        except inngest.StepError as error:
            return f"caught {error.message}"

    both = await ctx.group.parallel(
        (
            lambda: ctx.step.run("quick", quick),
            guarded,
            lambda: ctx.step.sleep("nap", datetime.timedelta(milliseconds=200)),
            lambda: ctx.step.invoke("child", function=child, data={"x": 1}),
            lambda: ctx.step.wait_for_event("never", event=event("never"), timeout=seconds(1)),
        ),
    )
    note("joined")
    return list(both)


@program("five")
async def five(ctx: inngest.Context) -> list[str]:
    async def noted(what: str) -> str:
        note(what)
        return what

    return [await ctx.step.run(what, noted, what) for what in ("one", "two", "three", "four", "five")]


@program("exemplary")
async def exemplary(ctx: inngest.Context) -> list[str]:
    async def noted(what: str) -> str:
        note(what)
        return what

    x, y, _ = await ctx.group.parallel(
        (
            lambda: ctx.step.run("x", noted, "x"),
            lambda: ctx.step.run("y", noted, "y"),
            lambda: ctx.step.sleep("z", seconds(1)),
        ),
    )
    return [x, y, await ctx.step.run("w", noted, "w")]


@program("chains")
async def chains(ctx: inngest.Context) -> list[list[str]]:
    async def noted(what: str) -> str:
        note(what)
        return what

    async def chain(name: str) -> list[str]:
        return [await ctx.step.run(f"{name} {n}", noted, f"{name} {n}") for n in (1, 2)]

    return list(await ctx.group.parallel((lambda: chain("a"), lambda: chain("b"), lambda: chain("c"))))


@program("settled", retries=1)
async def settled(ctx: inngest.Context) -> list[str]:
    async def good() -> str:
        note("good")
        return "good"

    async def bad() -> str:
        note("bad")
        raise ValueError("bad")

    async def guarded() -> str:
        try:
            return await ctx.step.run("bad", bad)
        except inngest.StepError as error:
            return error.message

    return list(await ctx.group.parallel((lambda: ctx.step.run("good", good), guarded)))


@program("sleeps-too-long", retries=3)
async def sleeps_too_long(ctx: inngest.Context) -> None:
    await ctx.step.sleep("ages", datetime.timedelta(days=400))


@program("sends-outside")
async def sends_outside(ctx: inngest.Context) -> object:
    events = [inngest.Event(name=one["name"], data=one["data"]) for one in ctx.event.data["events"]]
    try:
        return len(await client.send(events))
    except Exception as error:
        return f"refused: {error}"


class Gives(inngest.Middleware):
    """Dependency injection as users write it: the function finds what it needs in its context."""

    async def transform_input(self, ctx: typing.Any, function: typing.Any, steps: typing.Any) -> None:
        ctx.given = "given"


@program("middleware", middleware=[Gives])
async def middleware(ctx: inngest.Context) -> list[object]:
    async def inside() -> str:
        return str(ctx.given).upper()  # type: ignore[attr-defined]

    return [ctx.given, await ctx.step.run("inside", inside)]  # type: ignore[attr-defined]


# Waits, invocations, cancellation.


@program("waits")
async def waits(ctx: inngest.Context) -> list[object]:
    found = await ctx.step.wait_for_event(
        "answer", event=event("answer"), if_exp="event.data.id == async.data.id && async.data.ok", timeout=seconds(300)
    )
    none = await ctx.step.wait_for_event("never", event=event("never"), timeout=seconds(1))
    return [found.data if found else None, found.name if found else None, none]


@program("both")
async def both(ctx: inngest.Context) -> list[object]:
    found, sent = await ctx.group.parallel(
        (
            lambda: ctx.step.wait_for_event("answer", event=event("self"), timeout=seconds(300)),
            lambda: ctx.step.send_event("send", inngest.Event(name=event("self"), data={"n": 1})),
        ),
    )
    return [found.data if found else None, len(sent)]


@program("waits-for-itself")
async def waits_for_itself(ctx: inngest.Context) -> object:
    return await ctx.step.wait_for_event("again", event=event("waits-for-itself"), timeout=seconds(1))


@program("waits-wrongly", retries=3)
async def waits_wrongly(ctx: inngest.Context) -> object:
    return await ctx.step.wait_for_event("answer", event=event("answer"), if_exp="this is (no expression", timeout=seconds(300))


@program("child")
async def child(ctx: inngest.Context) -> object:
    note("child")
    if ctx.event.data.get("fail"):
        raise inngest.NonRetriableError("the child failed")
    await ctx.step.sleep("nap", seconds(ctx.event.data.get("nap", 0)))
    return {"got": ctx.event.data.get("x")}


@program("invokes")
async def invokes(ctx: inngest.Context) -> list[object]:
    good = await ctx.step.invoke("good", function=child, data={"x": [1, 2]})
    errors = []
    try:
        await ctx.step.invoke("bad", function=child, data={"fail": True})
    except inngest.StepError as error:
        errors.append(["bad", error.name, error.message])
    try:
        await ctx.step.invoke("slow", function=child, data={"nap": 60}, timeout=seconds(1))
    except inngest.StepError as error:
        errors.append(["slow", error.name, error.message])
    try:
        await ctx.step.invoke_by_id("nobody", function_id="nobody")
    except inngest.StepError as error:
        errors.append(["nobody", error.name, error.message])
    return [good, errors]


@program("invokes-once")
async def invokes_once(ctx: inngest.Context) -> object:
    try:
        return await ctx.step.invoke("child", function=child, data=ctx.event.data)
    except inngest.StepError as error:
        return ["caught", error.name, error.message]


@program("invokes-other")
async def invokes_other(ctx: inngest.Context) -> object:
    return await ctx.step.invoke_by_id("other", app_id=ctx.event.data["app"], function_id="child", data={"x": ctx.event.data["x"]})


@program("refers")
async def refers(ctx: inngest.Context) -> list[object]:
    return list(
        await ctx.group.parallel(
            (
                lambda: ctx.step.invoke_by_id("left", app_id=APP_ID, function_id="child", data={"x": "left"}),
                lambda: ctx.step.invoke_by_id("right", app_id=APP_ID, function_id="child", data={"x": "right"}),
            ),
        )
    )


@program("cancelled", cancel=[inngest.Cancel(event=event("stop"), if_exp="event.data.id == async.data.id")])
async def cancelled(ctx: inngest.Context) -> str:
    await ctx.step.sleep("long", seconds(300))
    return "went on"


@program("gated")
async def gated(ctx: inngest.Context) -> str:
    async def busy() -> int:
        # Until the case lets it go.
        while not is_free():
            pass
        return note("busy")

    await ctx.step.run("busy", busy)
    note("after")
    return "went on"


if hasattr(inngest, "Timeouts"):

    @program("limited", timeouts=inngest.Timeouts(finish=seconds(1)))
    async def limited(ctx: inngest.Context) -> str:
        await ctx.step.sleep("long", seconds(300))
        return "went on"

    @program("startlimited", concurrency=[inngest.Concurrency(limit=1)], timeouts=inngest.Timeouts(start=seconds(1)))
    async def startlimited(ctx: inngest.Context) -> str:
        async def busy() -> int:
            # Holds the only place until the case lets it go.
            while not is_free():
                pass
            return note("busy")

        await ctx.step.run("busy", busy)
        return "started"


if hasattr(inngest, "ParallelMode"):

    @program("races")
    async def races(ctx: inngest.Context) -> list[object]:
        async def chain(name: str, nap: float) -> str:
            await ctx.step.sleep(f"{name} nap", seconds(nap))

            async def done() -> str:
                note(f"{name} done")
                return name

            return await ctx.step.run(f"{name} done", done)

        both = await ctx.group.parallel(
            (lambda: chain("quick", 0.1), lambda: chain("slow", 2)),
            parallel_mode=inngest.ParallelMode.RACE,
        )
        return list(both)


# Failures.


@program("caught", retries=1)
async def caught(ctx: inngest.Context) -> str:
    async def boom() -> None:
        note("boom")
        raise ValueError("boom")

    try:
        await ctx.step.run("boom", boom)
    except inngest.StepError as error:
        return f"caught {error.message}"
    return "nothing raised"


@program("uncaught", retries=1)
async def uncaught(ctx: inngest.Context) -> None:
    async def boom() -> None:
        note("boom")
        raise KeyError("boom")

    note("uncaught")
    await ctx.step.run("boom", boom)


@program("budget", retries=1)
async def budget(ctx: inngest.Context) -> str:
    async def once_more(name: str) -> str:
        if note(name) == 1:
            raise ValueError(name)
        return name

    await ctx.step.run("a", once_more, "a")
    await ctx.step.run("b", once_more, "b")
    if note("end") == 1:
        raise ValueError("the end")
    return "passed"


@program("budget-sleeps", retries=20)
async def budget_sleeps(ctx: inngest.Context) -> list[str]:
    async def told(what: str) -> str:
        note(what)
        return what

    first = await ctx.step.run("before", told, "before")
    await ctx.step.sleep("nap", seconds(ctx.event.data.get("nap", 1)))
    return [first, await ctx.step.run("after", told, "after")]


@program("failing", retries=1)
async def failing(ctx: inngest.Context) -> None:
    note("failing")
    raise ValueError("the function itself")


@program("unserializable", retries=0)
async def unserializable(ctx: inngest.Context) -> object:
    async def opaque() -> object:
        return object()

    return await ctx.step.run("opaque", opaque)


@program("final", retries=4)
async def final(ctx: inngest.Context) -> None:
    note("final")
    raise inngest.NonRetriableError("no use")


@program("finalstep", retries=4)
async def finalstep(ctx: inngest.Context) -> None:
    async def no_use() -> None:
        note("no use")
        raise inngest.NonRetriableError("no use in a step")

    await ctx.step.run("no use", no_use)


@program("later", retries=2)
async def later(ctx: inngest.Context) -> str:
    async def busy() -> str:
        if note("busy") == 1:
            raise inngest.RetryAfterError("come back", seconds(2))
        return "free"

    free = await ctx.step.run("busy", busy)
    if note("later") == 1:
        raise inngest.RetryAfterError("once more", datetime.datetime.now(datetime.UTC) + seconds(2))
    return free


async def on_failure(ctx: inngest.Context) -> str:
    note("on_failure " + ctx.event.data["error"]["message"])
    return "told of it"


@program("told", on_failure=on_failure)
async def told(ctx: inngest.Context) -> None:
    raise ValueError("tell them")


# Triggers and settings.


@program("picky", inngest.TriggerEvent(event=event("*"), expression="event.data.amount > 10"))
async def picky(ctx: inngest.Context) -> str:
    return ctx.event.name


@program("dotted", inngest.TriggerEvent(event=event("a.b.*")))
async def dotted(ctx: inngest.Context) -> str:
    return ctx.event.name


@program(
    "manytriggers",
    [
        inngest.TriggerEvent(event=event("many")),
        inngest.TriggerEvent(event=event("many"), expression="event.data.n > 1"),
        inngest.TriggerEvent(event=event("more")),
    ],
)
async def manytriggers(ctx: inngest.Context) -> object:
    return [ctx.event.name, len(ctx.events)]


@program("ticks", inngest.TriggerCron(cron="* * * * *"))
async def ticks(ctx: inngest.Context) -> str:
    note(f"tick {ctx.event.id}")
    return str(ctx.event.data["cron"])


if "jitter" in inngest.TriggerCron.model_fields:

    @program("ticks-of-a-zone", inngest.TriggerCron(cron="TZ=Europe/Berlin * * * * *", jitter="2s"))
    async def ticks_of_a_zone(ctx: inngest.Context) -> str:
        return str(ctx.event.data["cron"])


@program("delayed")
async def delayed(ctx: inngest.Context) -> str:
    note("delayed")
    return "ran"


def settings() -> dict[str, typing.Any]:
    """Every setting that this version knows, in two functions, for some exclude each other."""
    known: dict[str, typing.Any] = {
        "name": "Every setting",
        "retries": 20,
        "cancel": [inngest.Cancel(event=event("stop"), if_exp="event.data.id == async.data.id", timeout=seconds(60))],
        "concurrency": [
            inngest.Concurrency(limit=5),
            inngest.Concurrency(limit=2, key="event.data.tenant", scope="env"),
        ],
        "debounce": inngest.Debounce(period=seconds(5), key="event.data.id", timeout=seconds(60)),
        "priority": inngest.Priority(run="event.data.plan == 'pro' ? 120 : 0"),
        "rate_limit": inngest.RateLimit(limit=10, period=seconds(60), key="event.data.id"),
        "throttle": inngest.Throttle(limit=10, period=seconds(60), burst=2, key="event.data.id"),
        "singleton": inngest.Singleton(mode="skip", key="event.data.id"),
    }
    if hasattr(inngest, "Timeouts"):
        known["timeouts"] = inngest.Timeouts(start=seconds(10), finish=seconds(60))
    return known


@program("settings", **settings())
async def every_setting(ctx: inngest.Context) -> None:
    pass


@program(
    "batched",
    inngest.TriggerCron(cron="TZ=Europe/Berlin 0 3 * * 1-5"),
    batch_events=inngest.Batch(max_size=10, timeout=seconds(5), key="event.data.id"),
    idempotency="event.data.id",
)
async def batched(ctx: inngest.Context) -> None:
    pass


# Flow control.


async def at_work(ctx: inngest.Context) -> str:
    async def work() -> int:
        count = note(f"{ctx.event.name} begins")
        while not is_free():  # noqa: ASYNC110 - what it waits for is in another process
            await asyncio.sleep(0.01)  # others are to be served meanwhile
        return count

    await ctx.step.run("work", work)
    return str(ctx.event.data.get("n"))


@program("narrow", concurrency=[inngest.Concurrency(limit=1, key="event.data.t")])
async def narrow(ctx: inngest.Context) -> str:
    return await at_work(ctx)


@program("urgent", concurrency=[inngest.Concurrency(limit=1)], priority=inngest.Priority(run="event.data.plan == 'pro' ? 600 : 0"))
async def urgent(ctx: inngest.Context) -> str:
    return await at_work(ctx)


@program("throttled", throttle=inngest.Throttle(limit=1, period=seconds(2), burst=1, key="event.data.t"))
async def throttled(ctx: inngest.Context) -> str:
    return "ran"


@program("rated", rate_limit=inngest.RateLimit(limit=1, period=seconds(60), key="event.data.t"))
async def rated(ctx: inngest.Context) -> str:
    return "ran"


@program("asks-rated")
async def asks_rated(ctx: inngest.Context) -> str:
    try:
        await ctx.step.invoke("ask", function=rated, data={"t": str(ctx.event.data["t"])})
    except inngest.StepError as error:
        return error.message
    return "ran"


@program("onceonly", idempotency="event.data.t")
async def onceonly(ctx: inngest.Context) -> str:
    return "ran"


@program("debounced", debounce=inngest.Debounce(period=seconds(1), key="event.data.t"))
async def debounced(ctx: inngest.Context) -> object:
    return ctx.event.data["n"]


@program("joined", batch_events=inngest.Batch(max_size=3, timeout=seconds(2), key="event.data.t"))
async def joined(ctx: inngest.Context) -> object:
    return [one.data["n"] for one in ctx.events]


@program("single", singleton=inngest.Singleton(mode="skip", key="event.data.t"))
async def single(ctx: inngest.Context) -> str:
    return await at_work(ctx)


@program("latest", singleton=inngest.Singleton(mode="cancel", key="event.data.t"))
async def latest(ctx: inngest.Context) -> str:
    await ctx.step.sleep("long", seconds(300 if ctx.event.data["n"] == 1 else 0))
    return "ran"


# Requests that the server makes.


@program("infers", retries=1)
async def infers(ctx: inngest.Context) -> list[object]:
    url = os.environ["NOTES_URL"] + "/ai"
    secret, asked = "sk-secret-of-the-provider", {"messages": [{"role": "user", "content": "how much is it?"}]}
    openai = ai.openai.Adapter(auth_key=secret, base_url=url, headers={"x-extra": "sk-secret-in-a-header"}, model="gpt")
    anthropic = ai.anthropic.Adapter(auth_key=secret, base_url=url, model="claude")
    answers: list[object] = [
        await ctx.step.ai.infer("openai", adapter=openai, body={**asked}),
        await ctx.step.ai.infer("anthropic", adapter=anthropic, body={**asked}),
    ]
    try:
        await ctx.step.ai.infer("refused", adapter=openai, body={**asked, "refuse": True})
    except inngest.StepError as error:
        answers.append([error.name, error.message])
    return answers


# Realtime.


@program("publishes")
async def publishes(ctx: inngest.Context) -> str:
    async def told(n: int) -> int:
        realtime.publish_sync(client, str(ctx.event.data["channel"]), "status", {"n": n, "text": "ü"})
        return n

    for n in (1, 2):
        await ctx.step.run(f"tell {n}", told, n)
    return "told"


# Large values.


@program("big")
async def big(ctx: inngest.Context) -> list[int]:
    async def part(size: int) -> str:
        return "x" * size

    parts = [await ctx.step.run(f"part {n}", part, 1_500_000) for n in range(4)]
    return [len(one) for one in parts]


@program("too-large", retries=1)
async def too_large(ctx: inngest.Context) -> str:
    async def part() -> str:
        note("too large")
        return "x" * (4 * 1024 * 1024 + 1)

    return await ctx.step.run("part", part)


@program("returns-too-much")
async def returns_too_much(ctx: inngest.Context) -> str:
    return "x" * (8 * 1024 * 1024 + 1)


# A case of registration starts the app with fewer functions.
if only := os.environ.get("ONLY"):
    functions = [one for one in functions if one.local_id in only.split(",")]
