"""What people ask for in several APIs: where a rerun begins, with which input; and that an app be synced by its address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stepwell.engine.inputs import FromStep
from stepwell.engine.model import AppRow, Json, Step
from stepwell.errors import NotFound, ProtocolError
from stepwell.protocol.codec import canonical, canonicalize, decode
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


async def asked_step(reader: Reader, run_id: str, body: dict[str, Any]) -> FromStep | None:
    """Where a request wants a rerun to begin: `{"fromStep"?: {"stepId", "input"?}}`. Raises as `from_step`."""
    asked = body.get("fromStep")
    if asked is None:
        return None
    if not isinstance(asked, dict) or not isinstance(asked.get("stepId"), str):
        raise ProtocolError('fromStep must be {"stepId": "…", "input"?: […]}')
    return await from_step(reader, run_id, asked["stepId"], canonical(asked["input"]).decode() if "input" in asked else None)


def comes_before(one: Step, step: Step) -> bool:
    """Whether a finished step finished before another one did."""
    return step.memo is None or one.position < step.position


def arguments(text: str) -> Json:
    """The arguments of a text of JSON; what is no array is the only one. Raises `ProtocolError`."""
    body = text.encode()
    if len(body) > STEP_INPUT_BYTES_MAX:
        raise ProtocolError(f"the step's input has {len(body)} bytes; at most {STEP_INPUT_BYTES_MAX} are taken", 413)
    return canonicalize(body if isinstance(decode(body), list) else b"[" + body + b"]")


SyncUrl = Callable[[str], Awaitable[None]]
"""Has an app register itself, by its URL. Raises `Error`."""


async def synced(reader: Reader, sync_url: SyncUrl | None, url: str) -> AppRow:
    """Have the app at an address register itself. Raises `Error` where it does not."""
    if sync_url is None:
        raise NotFound("this server syncs no apps by their URL")
    await sync_url(url)
    apps = (await reader.catalogue()).apps
    app = max((app for app in apps if same_place(app.url, url)), key=lambda app: app.synced_ms, default=None)
    if app is None:
        raise NotFound(f"the app at {url} registered itself under another address; look at the list of apps")
    return app


def same_place(a: str, b: str) -> bool:
    """Whether two addresses are one, as far as a query and the names of this machine go."""
    return plain(a) == plain(b)


def plain(url: str) -> str:
    """An address without what does not tell it from others."""
    return url.partition("?")[0].rstrip("/").replace("://127.0.0.1", "://localhost").replace("://0.0.0.0", "://localhost")
