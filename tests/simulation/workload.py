"""Simulated apps: functions as lists of stages, answered from the memo as a correct SDK would."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import msgspec

from stepwell.protocol.calls import Answer, Failed, Ops, Returned
from stepwell.protocol.config import Cancel, Timeouts
from stepwell.protocol.functions import (
    Batch,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Registration,
    Singleton,
    Throttle,
    Trigger,
)
from stepwell.protocol.lifecycle import DEFERRED
from stepwell.protocol.ops import Op


class Stage(msgspec.Struct, frozen=True):
    """`run`, `flaky` (fails a few times), `fails` (for good, caught or not), or `parallel` steps.

    A name may tell what its step does: `z:sleep`, `w:wait` (an event of the run's tenant), `v:any` (any event), `g:signal`,
    `i:invoke` (the plain program), `j:unknown` (a function that is not there), `k:doomed`.
    """

    kind: str
    names: tuple[str, ...]
    failures: int = 0


PROGRAMS: dict[str, tuple[Stage, ...]] = {
    "plain": (Stage("run", ("a",)), Stage("run", ("b",)), Stage("run", ("c",))),
    "nap": (Stage("run", ("a",)), Stage("tool", ("z:sleep",)), Stage("run", ("b",))),
    "waits": (Stage("run", ("a",)), Stage("tool", ("w:wait",)), Stage("run", ("b",)), Stage("tool", ("v:any",))),
    "both": (Stage("parallel", ("w:wait", "v:any", "p", "i:invoke")), Stage("run", ("a",))),
    "signals": (Stage("tool", ("g:signal",)), Stage("run", ("a",))),
    "calls": (Stage("tool", ("i:invoke",)), Stage("tool", ("j:unknown",)), Stage("parallel", ("k:doomed", "p", "i2:invoke"))),
    "timed": (Stage("run", ("a",)), Stage("tool", ("z:sleep",)), Stage("run", ("b",))),
    "fan": (Stage("parallel", ("p", "q", "r", "z:sleep")), Stage("run", ("a",)), Stage("parallel", ("s", "t"))),
    "flaky": (Stage("flaky", ("f",), 2), Stage("parallel", ("p", "q:flaky"), 1), Stage("run", ("a",))),
    "caught": (Stage("fails", ("x:caught",)), Stage("run", ("a",))),
    "doomed": (Stage("run", ("a",)), Stage("fails", ("x",))),
    "empty": (),
    "weighed": (Stage("run", ("a",)), Stage("run", ("b",))),
    "throttled": (Stage("run", ("a",)),),
    "limited": (Stage("run", ("a",)),),
    "once": (),
    "debounced": (Stage("run", ("a",)),),
    "batched": (Stage("run", ("a",)), Stage("run", ("b",))),
    "single": (Stage("run", ("a",)), Stage("tool", ("z:sleep",)), Stage("run", ("b",))),
    "last": (Stage("tool", ("z:sleep",)), Stage("run", ("a",))),
    "whole": (Stage("run", ("a",)), Stage("parallel", ("p", "z:sleep")), Stage("run", ("b",))),
}

ENDPOINTS: dict[str, tuple[Stage, ...]] = {
    "page": (Stage("run", ("a",)), Stage("run", ("b",))),
    "slow-page": (Stage("run", ("a",)), Stage("tool", ("z:sleep",)), Stage("run", ("b",))),
    "wide-page": (Stage("parallel", ("p", "q", "z:sleep")), Stage("flaky", ("f",), 2)),
    "bad-page": (Stage("run", ("a",)), Stage("fails", ("x",))),
}
"""Programs that their apps begin by themselves (`endpoints.py`)."""

LIMITS: dict[str, tuple[Concurrency, ...]] = {
    "fan": (Concurrency(limit=2),),
    "nap": (Concurrency(limit=1, key="event.data.tenant"),),
    "plain": (Concurrency(limit=3), Concurrency(limit=1, key="event.data.tenant")),
}
TENANT = "event.data.tenant"
SETTINGS: dict[str, dict[str, object]] = {
    "weighed": {
        "concurrency": (Concurrency(limit=1), Concurrency(limit=9, key=TENANT, weight="event.data.tenant == 2 ? 3 : 1")),
        "priority": "event.data.rush * 60",
    },
    "throttled": {
        "throttle": Throttle(limit=1, period_ms=10_000, burst=1),
        "concurrency": (Concurrency(limit=2, key=TENANT),),
        "priority": "event.data.rush * -20",
    },
    "limited": {"rate_limit": RateLimit(limit=2, period_ms=30_000, key=TENANT)},
    "once": {"idempotency": TENANT, "retries": 0},
    "debounced": {"debounce": Debounce(period_ms=5_000, timeout_ms=12_000, key=TENANT), "throttle": Throttle(limit=2, period_ms=5_000)},
    "batched": {
        "batch": Batch(max_size=3, timeout_ms=8_000, key=TENANT, where="event.data.tenant < 3"),
        "concurrency": (Concurrency(limit=1),),
    },
    "single": {"singleton": Singleton(mode="skip", key=TENANT), "rate_limit": RateLimit(limit=3, period_ms=20_000)},
    "last": {"singleton": Singleton(mode="cancel", key=TENANT), "concurrency": (Concurrency(limit=1, key=TENANT, scope="env"),)},
    "whole": {
        "concurrency": (
            Concurrency(limit=1, key=TENANT, per="run", weight="event.data.tenant"),
            Concurrency(limit=1, key=TENANT, scope="env"),
        ),
        "priority": "event.data.tenant == 1 ? 60 : 0",
    },
}
"""Settings of flow control, beside the plain limits: each of them somewhere, some together."""
FLOWING = tuple(SETTINGS)

LATER: dict[str, tuple[Concurrency, ...]] = {
    "nap": (Concurrency(limit=1, key=TENANT, weight=TENANT), Concurrency(limit=2)),
    "plain": (Concurrency(limit=1, key=TENANT),),
    "throttled": (),
    "whole": (Concurrency(limit=1, key=TENANT, per="run"),),
}
"""Other limits that the app may tell later, with other keys: what was queued before keeps its own."""

RUSH = ("weighed", "weighed", "weighed", "both", "flaky", "doomed", "calls", "stop")
"""The events that come to a node with little room."""
HEAVY = ("sim-both", "sim-flaky")
"""Functions that it is to give more turns than others."""
HEAVY_WEIGHT = 4

CANCELS: dict[str, tuple[Cancel, ...]] = {
    "nap": (Cancel(event="sim/stop", where="event.data.tenant == async.data.tenant"),),
    "waits": (Cancel(event="sim/stop", where="async.data.tenant > 1"), Cancel(event="inngest/function.cancelled", timeout="1m")),
}
SCORE = b'{"kind":"inngest.score","op":"merge","scope":"run","values":{"s":{"value":1}}}'
NOTES = b'[{"kind":"userland.n","op":"merge","values":{"ran":1}},' + SCORE + b"]"
RETRIES = 3
CRON = Trigger(cron="*/10 * * * *", jitter_ms=5_000)


def triggers(name: str) -> tuple[Trigger, ...]:
    """A program's own event, and one that several share."""
    common = "sim/all" if name in ("plain", "nap") else "sim/flow" if name in FLOWING else None
    return (Trigger(event=f"sim/{name}"), *([] if common is None else [Trigger(event=common)]))


def registration(version: int = 1) -> Registration:
    """The app of all programs, each triggered by its own event; two of them by a common one as well. Its second version has other keys."""
    limits = {name: {"concurrency": some} for name, some in LATER.items()} if version == 2 else {}
    functions = tuple(
        FunctionConfig(
            id=f"sim-{name}",
            name=name,
            triggers=triggers(name),
            cancel=CANCELS.get(name, ()),
            timeouts=Timeouts(start_ms=30_000, finish_ms=15_000) if name == "timed" else None,
            **{"retries": RETRIES, "concurrency": LIMITS.get(name, ()), **SETTINGS.get(name, {}), **limits.get(name, {})},  # type: ignore[arg-type]
        )
        for name in PROGRAMS
    )
    told = FunctionConfig(id="sim-told", name="told", triggers=(Trigger(event="inngest/function.failed"),), retries=0)
    cron = FunctionConfig(id="sim-cron", name="cron", triggers=(CRON,), retries=0)
    later = FunctionConfig(id="sim-later", name="later", triggers=(Trigger(event=DEFERRED),), retries=0)
    every = (*functions, told, cron, later)
    return Registration(app_name="sim", url="", sdk="", framework="", app_version="", functions=every, checksum=str(version))


class App:
    """Answers calls; counts how often each step was run, and fails where its stage says so."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.begun_midway: set[str] = set()
        self.ran: Counter[tuple[str, str]] = Counter()

    def answer(self, program: str, run_id: str, memo: Mapping[str, bytes], step_id: str, attempt: int, plan: bool, version: int) -> Answer:
        """What the function does next, given its memo."""
        for stage in PROGRAMS.get(program) or ENDPOINTS.get(program, ()):
            missing = [name for name in stage.names if name.split(":")[0] not in memo]
            if not missing:
                if stage.kind == "fails" and ":caught" not in stage.names[0]:
                    return Failed(error=b'{"message":"not caught","name":"StepError"}', retriable=False)
                continue
            if stage.kind == "tool":
                return self._ops([op_of(missing[0])], version)
            targets = [name for name in missing if name.split(":")[0] == step_id]
            if targets:
                return self._ops([self._run(stage, targets[0], run_id, attempt)], version)
            if step_id != "step":
                continue
            if len(stage.names) == 1 and not plan:
                return self._ops([self._run(stage, missing[0], run_id, attempt)], version)
            # Nothing new: the rest of the group was planned by an earlier answer. In a run begun from a step nobody has planned it.
            told = run_id not in self.begun_midway
            if version < 2 and told and len(missing) < len(stage.names) and self._chance.random() < 0.5:
                return self._ops([], version)
            return self._ops([op_of(name) for name in missing], version)
        if step_id != "step":
            return Failed(error=b'{"message":"no such step","name":"StepNotFound"}', retriable=True)
        if self._chance.random() < 0.1:
            return self._ops([Op(op="RunComplete", id="end", data=b'"done"')], version)
        return Returned(data=b'"done"')

    def _run(self, stage: Stage, name: str, run_id: str, attempt: int) -> Op:
        step_id, _, what = name.partition(":")
        self.ran[run_id, step_id] += 1
        flaky = (stage.kind == "flaky" or what == "flaky") and self.ran[run_id, step_id] <= stage.failures
        if flaky or stage.kind == "fails":
            last = attempt >= RETRIES
            return Op(op="StepFailed" if last else "StepError", id=step_id, name=step_id, error=b'{"message":"no","name":"Error"}')
        notes = NOTES if step_id in "ap" else None
        return Op(op="StepRun", id=step_id, name=step_id, data=b"%d" % self.ran[run_id, step_id], metadata=notes)

    @staticmethod
    def _ops(ops: list[Op], version: int) -> Ops:
        return Ops(ops=tuple(ops), request_version=version)


WAIT = b'{"event":"sim/stop","if":"event.data.tenant == async.data.tenant","timeout":"3h"}'


def op_of(name: str) -> Op:
    """What an app answers to have the step done: a tool of the server's, or a step to be called by itself."""
    step_id, _, what = name.partition(":")
    match what:
        case "sleep":
            return Op(op="Sleep", id=step_id, name="20s")
        case "wait":
            return Op(op="WaitForEvent", id=step_id, name=step_id, opts=WAIT)
        case "any":
            return Op(op="WaitForEvent", id=step_id, name="sim/all", opts=b'{"timeout":"2h"}')
        case "signal":
            return Op(op="WaitForSignal", id=step_id, name=step_id, opts=b'{"conflict":"replace","signal":"go","timeout":"20m"}')
        case "invoke":
            return Op(op="InvokeFunction", id=step_id, opts=b'{"function_id":"sim-plain","payload":{"data":{"tenant":1}},"timeout":"90s"}')
        case "doomed":
            return Op(op="InvokeFunction", id=step_id, opts=b'{"function_id":"sim-doomed","payload":{}}')
        case "unknown":
            return Op(op="InvokeFunction", id=step_id, opts=b'{"function_id":"sim-nobody"}')
        case _:
            return Op(op="StepPlanned", id=step_id, name=step_id)
