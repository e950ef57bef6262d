"""What runs, steps and tries gave: a result or an error, under an id that leads back to it."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec

from stepwell.engine.model import Json, Run, RunStatus, Step, StepStatus
from stepwell.errors import NotFound
from stepwell.protocol.codec import decode
from stepwell.store.base import Reader


class OutputRef(msgspec.Struct, frozen=True, array_like=True):
    """Whose output it is: a run's (`id` is ""), a step's, a try's. Its text is opaque to clients."""

    run_id: str
    of: Literal["run", "step", "attempt"]
    id: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


class Output(msgspec.Struct, frozen=True):
    """A result (`data`) or an error, each as JSON; one of them at most. `input`: what a step was given, where its app told it."""

    data: Json | None = None
    error: Json | None = None
    input: Json | None = None


def parse_output_id(text: str) -> OutputRef:
    """The reference of an id. Raises `NotFound` for what is none."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=OutputRef)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise NotFound(f"there is no output {text[:80]!r}: take the outputID of a span of a trace") from None


def output_of_run(run: Run) -> Output:
    """An ended run's result or error; nothing before the end, and of a cancelled one."""
    match run.status:
        case RunStatus.COMPLETED:
            return Output(data=run.output or b"null")
        case RunStatus.FAILED:
            return Output(error=run.output or b"{}")
        case _:
            return Output()


def output_of_step(step: Step) -> Output:
    """A finished step's result or error, out of what the app is sent for it (§4.3)."""
    if step.memo is None:
        return Output()
    if step.op == "WaitForEvent":
        return Output(data=step.memo)
    memo = decode(step.memo)
    if step.status is StepStatus.FAILED and isinstance(memo, dict) and "error" in memo:
        return Output(error=msgspec.json.encode(memo["error"]))
    if isinstance(memo, dict) and memo.keys() == {"data"}:
        return Output(data=step.memo[len(b'{"data":') : -1])
    return Output(data=step.memo)


def input_of(step: Step) -> Json | None:
    """What a step was given, where its app told it."""
    opts = None if step.opts is None else decode(step.opts)
    return msgspec.json.encode(opts["input"]) if isinstance(opts, dict) and "input" in opts else None


async def read_output(reader: Reader, ref: OutputRef) -> Output:
    """The output that a reference leads to. Raises `NotFound` where there is none."""
    output = Output()
    match ref.of:
        case "run":
            if (run := await reader.run(ref.run_id)) is not None:
                output = output_of_run(run)
        case "step":
            if (step := await reader.step(ref.run_id, ref.id)) is not None:
                output = msgspec.structs.replace(output_of_step(step), input=input_of(step))
        case "attempt":
            attempt = await reader.attempt(ref.id)
            if attempt is not None and attempt.run_id == ref.run_id:
                output = Output(error=attempt.error)
    if output.data is None and output.error is None:
        raise NotFound(f"there is no output of {ref.of} {ref.id or ref.run_id}: it has not ended, or never was")
    return output
