"""The local driver hands calls over."""

from __future__ import annotations

import asyncio
import json

from stepwell.drivers.base import CheckpointFn
from stepwell.drivers.local import LocalDriver
from stepwell.protocol.calls import Answer, CallRequest, Checkpoint, Failed, Returned
from tests.unit.drivers.test_http import request, unused


class Executor:
    """Answers with its name, after a checkpoint."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, request: CallRequest, checkpoint: CheckpointFn) -> Answer:
        """One call."""
        await checkpoint(Checkpoint(run_id=request.run_id, item_id=request.item_id, fence=request.fence, ops=()))
        return Returned(data=json.dumps(self.name).encode())


def test_calls_go_to_their_app() -> None:
    """With their checkpoints; an app that comes again takes the place of the earlier one."""
    driver, told = LocalDriver(), []

    async def checkpoint(one: Checkpoint) -> None:
        told.append(one.fence)

    async def main() -> list[Answer]:
        driver.add("shop", Executor("old"))
        driver.add("other", Executor("other"))
        driver.add("shop", Executor("new"))
        return [await driver.call(request("", app_id=app), checkpoint) for app in ("shop", "other")]

    assert asyncio.run(main()) == [Returned(data=b'"new"'), Returned(data=b'"other"')]
    assert told == [3, 3]


def test_an_app_that_is_not_here() -> None:
    """A failed attempt that may be retried, and says which apps are."""
    driver = LocalDriver()
    driver.add("other", Executor("other"))
    answer = asyncio.run(driver.call(request(""), unused))
    assert isinstance(answer, Failed) and answer.retriable
    assert json.loads(answer.error)["message"] == "The app 'shop' does not run in this process; here are: other."
