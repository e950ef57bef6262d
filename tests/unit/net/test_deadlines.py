"""One timer for many time limits."""

from __future__ import annotations

import asyncio
from typing import Any

from stepwell.net.deadlines import Deadlines
from tests.unit.net.conftest import Run


class Clock:
    """A loop whose time is turned by hand, as far as `Deadlines` uses it."""

    def __init__(self) -> None:
        self.now, self.timers, self.armed = 0.0, {}, 0  # type: ignore[var-annotated]

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, callback: Any, *args: Any) -> Any:
        timer = type("Timer", (), {"cancel": lambda timer: self.timers.pop(timer, None)})()
        self.timers[timer] = (at, callback, args)
        self.armed += 1
        return timer

    def turn(self, to: float) -> None:
        """Let time pass, and what is due happen."""
        while due := [timer for timer, (at, _, _) in self.timers.items() if at <= to]:
            at, callback, args = self.timers.pop(due[0])
            self.now = max(self.now, at)
            callback(*args)
        self.now = to


class Future:
    """A future of that loop."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.error = clock, None  # type: ignore[var-annotated]

    def get_loop(self) -> Clock:
        return self.clock

    def done(self) -> bool:
        return self.error is not None

    def set_exception(self, error: Exception) -> None:
        assert self.error is None
        self.error = error


def test_each_fails_at_its_time() -> None:
    """Whatever the order in which they were set, moved and dropped; one timer is armed at a time."""
    clock, deadlines = Clock(), Deadlines()
    futures: list[Any] = [Future(clock) for _ in range(5)]
    for future, at in zip(futures, (50, 10, 30, 20, 40), strict=True):
        deadlines.set(future, at)
        assert len(clock.timers) == 1
    deadlines.drop(futures[2])
    deadlines.set(futures[3], 60)
    for now, failed in ((9, []), (10, [1]), (39, [1]), (40, [1, 4]), (50, [0, 1, 4]), (59, [0, 1, 4]), (60, [0, 1, 3, 4])):
        clock.turn(now)
        assert [i for i, future in enumerate(futures) if future.done()] == failed
    assert len(deadlines) == 0 and clock.timers == {}


def test_short_calls_under_long_limits_arm_one_timer() -> None:
    """That is what it is for: a timer for each would be thousands."""
    clock, deadlines = Clock(), Deadlines()
    for now in range(1000):
        clock.turn(now)
        future: Any = Future(clock)
        deadlines.set(future, now + 7200)
        deadlines.drop(future)
    assert clock.armed == 1
    clock.turn(10_000)
    assert clock.timers == {}
    deadlines.set(future, 10_001)
    deadlines.close()
    clock.turn(20_000)
    assert not future.done()


def test_on_a_real_loop(run: Run) -> None:
    """A future fails with `TimeoutError`; one that is done stays as it is."""

    async def main() -> None:
        deadlines, loop = Deadlines(), asyncio.get_running_loop()
        late, done = loop.create_future(), loop.create_future()
        for future in (late, done):
            deadlines.set(future, loop.time() + 0.01)
        done.set_result(1)
        try:
            await late
        except TimeoutError:
            assert done.result() == 1
        else:
            raise AssertionError("it did not fail")

    run(main())
