"""What a run's own topics tell, and when nothing is done for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import msgspec

from stepwell.engine.model import Run, RunStatus, Step, StepStatus
from stepwell.engine.registry import Registry
from stepwell.engine.view import Changes, TableChanges
from stepwell.protocol.realtime import MESSAGE_BYTES_MAX, Topic
from stepwell.runtime.clock import SystemClock
from stepwell.runtime.hub import Subscription
from stepwell.runtime.realtime import EARLY_BYTES_MAX, EARLY_MS, Realtime

RUN = Run(
    id="01J0000000000000000000000R",
    function_id="a-f",
    function_version=1,
    app_name="a",
    event_ids=(),
    status=RunStatus.RUNNING,
    cause="event",
    origin=None,
    lane_id="l",
    keys=(),
    order_ms=1,
    created_ms=1,
    started_ms=2,
)
STEP = Step(
    run_id=RUN.id,
    id="s1",
    op="StepRun",
    name="load",
    user_id="load",
    index=0,
    status=StepStatus.COMPLETED,
    opts=None,
    memo=b'{"data":1}',
    attempts=1,
    queued_ms=1,
    started_ms=2,
    ended_ms=3,
    position=0,
)


def run(main: Coroutine[Any, Any, None]) -> None:
    """To its end, or not at all."""
    asyncio.run(asyncio.wait_for(main, 10))


def made() -> Realtime:
    """Over an empty registry."""
    return Realtime(SystemClock(), lambda: "id", lambda: Registry())


def changes(run: Run | None = None, *steps: Step) -> Changes:
    """A commit that wrote these."""
    tables = {"steps": TableChanges(list(steps), [], [])}
    if run is not None:
        tables["runs"] = TableChanges([], [run], [])
    return Changes(tables, [], [])


async def taken(subscription: Subscription) -> list[dict[str, Any]]:
    """What waits now."""
    return [json.loads((await subscription.next()).body) for _ in range(subscription.waiting)]  # type: ignore[union-attr]


def ended(status: RunStatus, output: bytes) -> Run:
    """The run at its end."""
    return msgspec.structs.replace(RUN, status=status, ended_ms=9, output=output)


def test_steps_come_before_their_run_s_end() -> None:
    """The run's end is the last that is told."""

    async def main() -> None:
        realtime = made()
        subscription = realtime.subscribe([Topic(RUN.id, "$run"), Topic(RUN.id, "$step")])
        realtime.tell(changes(ended(RunStatus.COMPLETED, b'{"ok":true}'), STEP))
        step, end = await taken(subscription)
        assert (step["kind"], step["topic"], step["run_id"]) == ("step", "$step", RUN.id)
        assert {key: step["data"][key] for key in ("id", "name", "status", "memo")} == {
            "id": "s1",
            "name": "load",
            "status": "completed",
            "memo": {"data": 1},
        }
        assert (end["kind"], end["fn_slug"], end["data"]["status"], end["data"]["output"]) == ("run", "a-f", "completed", {"ok": True})

    run(main())


def test_a_failed_run_has_an_error_and_a_large_output_is_left_out() -> None:
    """A message has a bound, and the rest is told all the same."""

    async def main() -> None:
        realtime = made()
        subscription = realtime.subscribe([Topic(RUN.id, "$run")])
        realtime.tell(changes(ended(RunStatus.FAILED, b'{"message":"boom"}')))
        realtime.tell(changes(ended(RunStatus.COMPLETED, b'"' + b"x" * MESSAGE_BYTES_MAX + b'"')))
        failed, large = await taken(subscription)
        assert failed["data"]["error"] == {"message": "boom"} and "output" not in failed["data"]
        assert large["data"]["status"] == "completed" and "output" not in large["data"]

    run(main())


def test_the_same_status_is_told_once() -> None:
    """A run that waits and goes on is running all the time."""

    async def main() -> None:
        realtime = made()
        subscription = realtime.subscribe([Topic(RUN.id, "$run")])
        for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.RUNNING):
            realtime.tell(changes(msgspec.structs.replace(RUN, status=status)))
        assert [one["data"]["status"] for one in await taken(subscription)] == ["queued", "running"]

    run(main())


def test_who_listens_late_is_told_how_the_run_stands() -> None:
    """What comes while that is read is newer, and comes alone."""

    async def main() -> None:
        realtime = made()

        async def read(run_id: str) -> Run | None:
            return RUN if run_id == RUN.id else None

        async def read_late(run_id: str) -> Run | None:
            realtime.tell(changes(ended(RunStatus.COMPLETED, b"1")))
            return RUN

        first = realtime.subscribe([Topic(RUN.id, "$run"), Topic("01J0000000000000000000000X", "$run")])
        await realtime.greet(first, RUN.id, read)
        await realtime.greet(first, "01J0000000000000000000000X", read)
        await realtime.greet(first, "nobody listens", read)
        realtime.tell(changes(RUN))
        assert [one["data"]["status"] for one in await taken(first)] == ["running"]
        second = realtime.subscribe([Topic(RUN.id, "$run")])
        await realtime.greet(second, RUN.id, read_late)
        assert [one["data"]["status"] for one in await taken(second)] == ["completed"]

    run(main())


class StillClock(SystemClock):
    """Time passes when it is told to."""

    elapsed = 0.0

    def elapsed_ms(self) -> float:
        """As told."""
        return self.elapsed


def test_who_comes_first_to_a_stream_gets_what_was_sent_before() -> None:
    """In order and once, before what comes next; not what is too old, and not more than is kept."""

    async def main() -> None:
        clock = StillClock()
        realtime = Realtime(clock, lambda: "id", lambda: Registry())
        for part in (b"a", b"b\xc3"):
            assert realtime.tee("r", part) == 0
        realtime.tee("old", b"x")
        first, second = realtime.subscribe([Topic("r", "t"), Topic("r", "$stream")]), realtime.subscribe([Topic("r", "$stream")])
        assert realtime.tee("r", b"c") == 2
        assert [(await first.next()).body for _ in range(first.waiting)] == [b"ab\xc3", b"c"]  # type: ignore[union-attr]
        assert [(await second.next()).body for _ in range(second.waiting)] == [b"c"]  # type: ignore[union-attr]
        clock.elapsed = EARLY_MS
        late = realtime.subscribe([])
        realtime.add(late, [Topic("old", "$stream")])
        assert late.waiting == 0
        for i in range(9):
            realtime.tee(f"many-{i}", b"x" * (EARLY_BYTES_MAX // 8))
        kept = [realtime.subscribe([Topic(f"many-{i}", "$stream")]).waiting for i in range(9)]
        assert kept == [0, 1, 1, 1, 1, 1, 1, 1, 1]

    run(main())


def test_nothing_is_written_for_nobody() -> None:
    """No message is made where nobody listens, neither of a commit nor of what is published."""

    async def main() -> None:
        realtime = made()
        realtime.tell(changes(RUN, STEP))
        assert realtime.publish("c", ["t"], msgspec.Raw(b"1")) == 0
        other = realtime.subscribe([Topic("c", "u"), Topic(RUN.id, "words")])
        realtime.tell(changes(RUN, STEP))
        stream = realtime.stream("c", ["t"])
        stream.write(b"x")
        stream.close()
        assert other.waiting == 0 and realtime.hub.counts.delivered == 0

    run(main())
