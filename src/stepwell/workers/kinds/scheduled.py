"""Ticks: a function of the server with the project's cron lines as its triggers, called by hand as well."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from stepwell.errors import InvokeError
from stepwell.protocol.config import TRIGGERS_MAX
from stepwell.protocol.cron import CLOUDFLARE
from stepwell.sdk.app import App
from stepwell.sdk.context import Context
from stepwell.sdk.options import Trigger
from stepwell.workers.bindings.calling import paid
from stepwell.workers.entrypoints import Worker
from stepwell.workers.part import function_name

ID = "scheduled"


class TickFailed(Exception):
    """The handler of a tick has failed."""


class TickFailedForGood(TickFailed):
    """The same, after it had said `noRetry()`."""


def declare(app: App, worker: Worker, crons: tuple[str, ...]) -> None:
    """Declare the function; further ones for lines beyond those that one may have. A tick is not tried again, as on the platform."""

    async def tick(ctx: Context[Any]) -> dict[str, Any]:
        told = ctx.event.data
        if "scheduledAt" in told:
            at_ms = int(datetime.fromisoformat(told["scheduledAt"]).timestamp() * 1000)
        else:
            at_ms = told.get("time") or time.time_ns() // 10**6
        raised: list[BaseException] = []
        report = await worker.call_scheduled(str(told.get("cron", "")).removeprefix(CLOUDFLARE), at_ms, raised.append)
        await paid()
        if report["outcome"] != "ok":
            error = raised[0] if raised else TypeError("there is no scheduled handler")
            raise (TickFailedForGood if report["noRetry"] else TickFailed)(f"{type(error).__name__}: {error}") from error
        return report

    for nth in range(0, max(1, len(crons)), TRIGGERS_MAX):
        triggers = [Trigger(cron=CLOUDFLARE + line) for line in crons[nth : nth + TRIGGERS_MAX]]
        app.function(trigger=triggers, id=f"{ID}-{nth // TRIGGERS_MAX + 1}" if nth else ID, retries=0)(tick)


async def fire(app: App, project: str, cron: str, time_ms: int | None) -> dict[str, Any]:
    """A tick by hand, in the process of ticks: its report, when it has ended."""
    run = await app.start(function_name(project, "scheduled", ID), {"cron": cron, **({} if time_ms is None else {"time": time_ms})})
    try:
        report: dict[str, Any] = await run.output()
    except InvokeError as error:
        return {"outcome": "exception", "noRetry": error.name == TickFailedForGood.__name__}
    return report
