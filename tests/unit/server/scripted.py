"""Apps written as lists of stages, answered from what is memoised, as an SDK would: for tests of what servers show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Failed, Ops, Returned
from stepwell.protocol.codec import canonical
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import step_hash
from stepwell.protocol.ops import Op


class Run(msgspec.Struct, frozen=True):
    """A step of the app's own code. `code` gets the try's number and the step's input, gives the result or raises."""

    name: str
    code: Callable[[int, Any], Any]
    opts: bytes | None = None
    metadata: bytes | None = None


class Tool(msgspec.Struct, frozen=True):
    """A step that the server does. `name`: what stands in the op's name (a sleep's length, an event)."""

    step: str
    op: str
    name: str = ""
    opts: bytes | None = None


Stage = tuple[Run | Tool, ...]
End = Callable[[dict[str, Any], int], Any]


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """Stages one after the other, the steps of one together; and what is returned at the end of all, from what is memoised."""

    id: str
    triggers: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    end: End
    retries: int = 2
    settings: dict[str, Any] = {}


class Scripted:
    """The app `shop`; its `call` is a driver."""

    def __init__(self, functions: tuple[Function, ...]) -> None:
        self.functions = {f"shop-{function.id}": function for function in functions}

    def registration(self) -> Registration:
        """What the app tells."""
        configs = tuple(
            FunctionConfig(
                id=slug,
                name=f.id,
                triggers=tuple(Trigger(event=event) for event in f.triggers),
                retries=f.retries,
                url="http://x",
                **f.settings,
            )
            for slug, f in self.functions.items()
        )
        return Registration(app_name="shop", url="http://x", sdk="py:v1", framework="none", app_version="", functions=configs, checksum="1")

    async def call(self, request: CallRequest, checkpoint: Callable[[Checkpoint], Awaitable[None]]) -> Answer:
        """Answer a call: the first stage that is not done, or the end."""
        function = self.functions[request.function_id]
        for stage in function.stages:
            missing = [step for step in stage if not done(request, step_id(step))]
            if not missing:
                continue
            targeted = [step for step in missing if step_id(step) == request.step_id]
            if targeted or (len(stage) == 1 and not request.disable_immediate_execution):
                return ops(told(targeted[0] if targeted else missing[0], request))
            return ops(*(told(step, request, planned=True) for step in missing))
        try:
            memos = {step_name(step): value_of(request.steps[step_id(step)]) for stage in function.stages for step in stage}
            return Returned(data=canonical(function.end(memos, request.attempt)))
        except Exception as error:
            return Failed(error=error_of(error), retriable=True)


def step_name(step: Run | Tool) -> str:
    """The user's name of a step."""
    return step.name if isinstance(step, Run) else step.step


def step_id(step: Run | Tool) -> str:
    """Its id."""
    return step_hash(step_name(step))


def done(request: CallRequest, id: str) -> bool:
    """Whether the step is memoised."""
    return id in request.stack


def value_of(memo: bytes) -> Any:
    """What user code gets for a memo."""
    value = msgspec.json.decode(memo)
    return value["data"] if isinstance(value, dict) and value.keys() == {"data"} else value


def told(step: Run | Tool, request: CallRequest, planned: bool = False) -> Op:
    """The op that an app answers for a step."""
    named = {"id": step_id(step), "display_name": step_name(step), "user_id": step_name(step), "opts": step.opts}
    if isinstance(step, Tool):
        return Op(op=step.op, name=step.name, **named)  # type: ignore[arg-type]
    if planned:
        return Op(op="StepPlanned", name=step.name, **named)  # type: ignore[arg-type]
    given: Mapping[str, Any] = msgspec.json.decode(request.steps.get(step_id(step), b"{}"))
    try:
        data = canonical(step.code(request.attempt, given.get("input")))
        return Op(op="StepRun", name=step.name, data=data, metadata=step.metadata, **named)  # type: ignore[arg-type]
    except Exception as error:
        last = request.attempt + 1 >= request.max_attempts
        return Op(op="StepFailed" if last else "StepError", name=step.name, error=error_of(error), **named)  # type: ignore[arg-type]


def error_of(error: Exception) -> bytes:
    """An error as SDKs tell it."""
    return canonical({"name": type(error).__name__, "message": str(error), "stack": "Traceback …"})


def ops(*told: Op) -> Ops:
    """A generator answer."""
    return Ops(ops=told, request_version=2)
