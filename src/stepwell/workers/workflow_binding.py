"""What `env` has for a workflow: making instances, finding them, and asking and telling them things.

An instance is a run; which run, a key-value namespace of the workflow's says, by the instance's id. Instances made anew have another run.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from stepwell.errors import NotFound, RunHasEnded
from stepwell.protocol.codec import decode
from stepwell.sdk.app import App
from stepwell.sdk.remote import refusal
from stepwell.sdk.runs import set_pause
from stepwell.workers.errors import WorkflowError
from stepwell.workers.mailbox import KEEP, signal_of
from stepwell.workers.rpc import Record
from stepwell.workers.values import packed, unpacked

BATCH_MAX = 100
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_STATUSES = {"completed": "complete", "failed": "errored", "cancelled": "terminated", "skipped": "unknown"}
_PAUSES = {"paused": "paused", "pausing": "waitingForPause"}


class Workflow:
    """The binding of a workflow. `function` is its function's name on the server (`APP-NAME`)."""

    def __init__(self, app: App, name: str, function: str) -> None:
        self._app, self.name, self._function = app, name, function
        self._instances = app.kv(f"workflow-{name}"[:64])

    async def create(self, options: dict[str, Any] | None = None, **given: Any) -> WorkflowInstance:
        """Make an instance: `create(id="order-1", params={…})`. Raises `WorkflowError` for an id that is there already."""
        return await self._create({**(options or {}), **given})

    async def create_batch(self, batch: Iterable[dict[str, Any]]) -> list[WorkflowInstance]:
        """Make up to 100 instances. Those whose id is there already are left out."""
        wanted = list(batch)
        if not wanted:
            raise WorkflowError("batchCreate should have at least 1 instance")
        if len(wanted) > BATCH_MAX:
            raise WorkflowError(f"batchCreate has {len(wanted)} instances; it takes {BATCH_MAX} at most")
        for options in wanted:
            _checked_id(options.get("id"))
        made = []
        for options in wanted:
            try:
                made.append(await self._create(options))
            except AlreadyExists:
                continue
        return made

    createBatch = create_batch

    async def get(self, id: str) -> WorkflowInstance:
        """An instance by its id. Raises `WorkflowError` where there is none."""
        if await self.run_of(id) is None:
            raise WorkflowError("instance.not_found")
        return WorkflowInstance(self, id)

    async def _create(self, options: dict[str, Any]) -> WorkflowInstance:
        chosen = _checked_id(options.get("id"))
        id = chosen or str(uuid.uuid4())
        params = packed(options.get("params", {}))
        if chosen is not None and await self.run_of(chosen) is not None:
            raise AlreadyExists(chosen)
        nonce = secrets.token_hex(8)
        told = {"instanceId": id, "params": params, "startedMs": time.time_ns() // 1_000_000, "nonce": nonce}
        run = await self._app.start(self._function, told, id=id)
        if chosen is not None and (await run.events())[0].data.get("nonce") != nonce:
            # Somebody else has made it in this moment, or has made it and then not lived to keep its run: its run is kept now.
            await self._keep(id, run.id)
            raise AlreadyExists(chosen)
        await self._keep(id, run.id)
        return WorkflowInstance(self, id)

    # Which run an instance is.

    async def run_of(self, id: str) -> str | None:
        """The run of an instance; `None` where there is no such instance."""
        if not isinstance(id, str) or not _ID.fullmatch(id):
            return None
        kept = await self._instances.get(id)
        return None if kept is None else str(kept["run"])

    async def _keep(self, id: str, run_id: str) -> None:
        await self._instances.put(id, {"run": run_id})

    # What instances ask for.

    async def status_of(self, id: str) -> Record:
        """How an instance stands."""
        run_id = await self._live_run_of(id)
        try:
            state = await self._app.way.run_state(run_id)
        except NotFound:
            return Record(status="unknown", output=None, error=None)
        output, error = None, None
        if state.status == "completed":
            output = unpacked(decode(state.output or b"null"))
        elif state.status == "failed":
            told = decode(state.output or b"{}")
            told = told if isinstance(told, dict) else {"message": str(told)}
            error = Record(name=str(told.get("name", "Error")), message=str(told.get("message", "")))
        status = _STATUSES.get(state.status, state.status) if state.paused is None else _PAUSES[state.paused]
        return Record(status=status, output=output, error=error)

    async def terminate(self, id: str) -> None:
        """End an instance."""
        try:
            await self._app.way.cancel(await self._live_run_of(id))
        except RunHasEnded:
            raise WorkflowError("(instance.cannot_terminate) Cannot terminate instance since its on a finite state") from None

    async def set_pause(self, id: str, what: Literal["pause", "resume"]) -> None:
        """Pause an instance, or resume it. One that has ended stays as it is."""
        with contextlib.suppress(RunHasEnded):
            await set_pause(self._app, await self._live_run_of(id), what)

    async def restart(self, id: str, from_step: str | None) -> None:
        """Make an instance anew, from its beginning or from a step."""
        run_id = await self._live_run_of(id)
        with contextlib.suppress(RunHasEnded):
            await self._app.way.cancel(run_id)
        body = {} if from_step is None else {"fromStep": {"stepId": from_step}}
        path = f"/v2/runs/{quote(run_id, safe='')}/rerun"
        status, answer = await self._app.way.ask("POST", path, msgspec.json.encode(body), once=True)
        if status == 404 and from_step is not None:
            raise WorkflowError(f'(instance.cannot_restart) Step "{from_step}" not found in execution history')
        if status >= 300:
            raise refusal("POST", path, status, answer)
        await self._keep(id, str(msgspec.json.decode(answer)["data"]["runId"]))

    async def send(self, id: str, event_type: str, payload: Any) -> None:
        """Send an event to an instance; kept where it does not wait for it yet."""
        event = {"type": event_type, "payload": packed(payload), "timestamp": {"$time": time.time_ns() // 1_000_000}}
        body = {"signal": signal_of(self.name, id, event_type), "data": event, "keep": KEEP}
        status, answer = await self._app.way.ask("POST", "/v1/signals", msgspec.json.encode(body), once=True)
        if status >= 300:
            raise refusal("POST", "/v1/signals", status, answer)

    async def _live_run_of(self, id: str) -> str:
        run_id = await self.run_of(id)
        if run_id is None:
            raise WorkflowError("instance.not_found")
        return run_id

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


class AlreadyExists(WorkflowError):
    """The instance is there."""

    def __init__(self, id: str) -> None:
        super().__init__(f'(instance.already_exists) Workflow instance with id "{id}" already exists')


class WorkflowInstance:
    """An instance of a workflow."""

    def __init__(self, workflow: Workflow, id: str) -> None:
        self._workflow, self.id = workflow, id

    async def status(self) -> Record:
        """`status`, `output` of one that is complete, `error`.

        The status is queued, running, waiting, paused, waitingForPause, complete, errored, terminated or unknown.
        """
        return await self._workflow.status_of(self.id)

    async def terminate(self) -> None:
        """End it. Raises `WorkflowError` where it has ended."""
        await self._workflow.terminate(self.id)

    async def restart(self, options: dict[str, Any] | None = None, **given: Any) -> None:
        """Begin it anew with the same parameters; with `{"from": {"name": step}}`, with what finished before that step kept."""
        begin = {**(options or {}), **given}.get("from")
        await self._workflow.restart(self.id, str(begin["name"]) if isinstance(begin, dict) else None)

    async def send_event(self, options: dict[str, Any] | None = None, **given: Any) -> None:
        """Send it an event: `send_event(type="approved", payload={…})`."""
        event = {**(options or {}), **given}
        event_type = event.get("type")
        if not isinstance(event_type, str) or not event_type:
            raise TypeError(f"send_event: type is {event_type!r}; it must be a text, the same that wait_for_event names")
        await self._workflow.send(self.id, event_type, event.get("payload"))

    sendEvent = send_event

    async def pause(self) -> None:
        """Run no further step of it until it is resumed; the step that runs ends first. Nothing happens to one that has ended."""
        await self._workflow.set_pause(self.id, "pause")

    async def resume(self) -> None:
        """Have it go on, where it is paused or to be. Sleeps and waits have gone on meanwhile."""
        await self._workflow.set_pause(self.id, "resume")

    def __repr__(self) -> str:
        return f"<instance {self.id} of {self._workflow.name}>"


def _checked_id(id: Any) -> str | None:
    if id is None:
        return None
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise WorkflowError("Workflow instance has invalid id")
    return id
