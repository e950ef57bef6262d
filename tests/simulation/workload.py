"""Simulated apps: functions as lists of stages, answered from the memo as a correct SDK would."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import msgspec

from stepwell.protocol.calls import Answer, Failed, Ops, Returned
from stepwell.protocol.functions import Concurrency, FunctionConfig, Registration, Trigger
from stepwell.protocol.ops import Op


class Stage(msgspec.Struct, frozen=True):
    """`run`, `flaky` (fails a few times), `fails` (for good, caught or not), `sleep`, or `parallel` steps with perhaps a sleep."""

    kind: str
    names: tuple[str, ...]
    failures: int = 0


PROGRAMS: dict[str, tuple[Stage, ...]] = {
    "plain": (Stage("run", ("a",)), Stage("run", ("b",)), Stage("run", ("c",))),
    "nap": (Stage("run", ("a",)), Stage("sleep", ("z",)), Stage("run", ("b",))),
    "fan": (Stage("parallel", ("p", "q", "r", "z:sleep")), Stage("run", ("a",)), Stage("parallel", ("s", "t"))),
    "flaky": (Stage("flaky", ("f",), 2), Stage("parallel", ("p", "q:flaky"), 1), Stage("run", ("a",))),
    "caught": (Stage("fails", ("x:caught",)), Stage("run", ("a",))),
    "doomed": (Stage("run", ("a",)), Stage("fails", ("x",))),
    "empty": (),
}

LIMITS: dict[str, tuple[Concurrency, ...]] = {
    "fan": (Concurrency(limit=2),),
    "nap": (Concurrency(limit=1, key="event.data.tenant"),),
    "plain": (Concurrency(limit=3), Concurrency(limit=1, key="event.data.tenant")),
}
RETRIES = 3


def registration() -> Registration:
    """The app of all programs, each triggered by its own event; two of them by a common one as well."""
    functions = tuple(
        FunctionConfig(
            id=f"sim-{name}",
            name=name,
            triggers=(Trigger(event=f"sim/{name}"), *([Trigger(event="sim/all")] if name in ("plain", "nap") else [])),
            retries=RETRIES,
            concurrency=LIMITS.get(name, ()),
        )
        for name in PROGRAMS
    )
    told = FunctionConfig(id="sim-told", name="told", triggers=(Trigger(event="inngest/function.failed"),), retries=0)
    return Registration(app_name="sim", url="", sdk="", framework="", app_version="", functions=(*functions, told), checksum="1")


class App:
    """Answers calls; counts how often each step was run, and fails where its stage says so."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.ran: Counter[tuple[str, str]] = Counter()

    def answer(self, program: str, run_id: str, memo: Mapping[str, bytes], step_id: str, attempt: int, plan: bool, version: int) -> Answer:
        """What the function does next, given its memo."""
        for stage in PROGRAMS.get(program, ()):
            missing = [name for name in stage.names if name.split(":")[0] not in memo]
            if not missing:
                if stage.kind == "fails" and ":caught" not in stage.names[0]:
                    return Failed(error=b'{"message":"not caught","name":"StepError"}', retriable=False)
                continue
            if stage.kind == "sleep":
                return self._ops([sleep(missing[0])], version)
            targets = [name for name in missing if name.split(":")[0] == step_id]
            if targets:
                return self._ops([self._run(stage, targets[0], run_id, attempt)], version)
            if step_id != "step":
                continue
            if len(stage.names) == 1 and not plan:
                return self._ops([self._run(stage, missing[0], run_id, attempt)], version)
            if version < 2 and len(missing) < len(stage.names) and self._chance.random() < 0.5:
                return self._ops([], version)
            return self._ops([sleep(name) if name.endswith(":sleep") else planned(name) for name in missing], version)
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
        return Op(op="StepRun", id=step_id, name=step_id, data=b"%d" % self.ran[run_id, step_id])

    @staticmethod
    def _ops(ops: list[Op], version: int) -> Ops:
        return Ops(ops=tuple(ops), request_version=version)


def sleep(name: str) -> Op:
    """A short sleep."""
    return Op(op="Sleep", id=name.split(":")[0], name="20s")


def planned(name: str) -> Op:
    """A step to be called by itself."""
    step_id = name.split(":")[0]
    return Op(op="StepPlanned", id=step_id, name=step_id)
