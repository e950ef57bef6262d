"""Where a rerun begins, as people ask for it: a step, and its input in place of its own."""

from __future__ import annotations

from stepwell.engine.inputs import FromStep
from stepwell.engine.model import Json, Step
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonicalize, decode
from stepwell.protocol.ids import step_hash
from stepwell.protocol.ops import STEP_INPUT_BYTES_MAX
from stepwell.store.base import Reader


async def from_step(reader: Reader, run_id: str, step_id: str, input: str | None) -> FromStep:
    """The step of a run to begin from, by its id or the user's. `input` is the text of JSON: the step's arguments, an array.

    What finished before the step did is kept; of a step that never finished, all that did. Raises `NotFound`, and `ProtocolError` for
    an input that cannot be.
    """
    steps = {step.id: step for step in await reader.steps(run_id)}
    step = steps.get(step_id) or steps.get(step_hash(step_id))
    if step is None:
        raise NotFound(f"run {run_id} has no step {step_id!r} to begin from")
    kept = [one for one in steps.values() if one.memo is not None and one.id != step.id and comes_before(one, step)]
    kept.sort(key=lambda one: one.position)
    return FromStep(step.id, tuple(kept), None if input is None else arguments(input))


def comes_before(one: Step, step: Step) -> bool:
    """Whether a finished step finished before another one did."""
    return step.memo is None or one.position < step.position


def arguments(text: str) -> Json:
    """The arguments of a text of JSON; what is no array is the only one. Raises `ProtocolError`."""
    body = text.encode()
    if len(body) > STEP_INPUT_BYTES_MAX:
        raise ProtocolError(f"the step's input has {len(body)} bytes; at most {STEP_INPUT_BYTES_MAX} are taken", 413)
    return canonicalize(body if isinstance(decode(body), list) else b"[" + body + b"]")
