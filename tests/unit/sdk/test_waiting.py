"""What the tasks of a run are taken to wait for."""

from __future__ import annotations

import asyncio

from stepwell.sdk.waiting import waits_elsewhere


def test_a_task_whose_wait_is_over_is_about_to_go_on() -> None:
    """Between the end of what a task awaits and its own next turn, the run is not at rest: a look in that moment finds it at work."""
    seen: list[bool] = []

    async def awaited() -> None:
        await asyncio.sleep(0)

    async def function(gathered: bool) -> None:
        inner = asyncio.ensure_future(awaited())
        # Told before the function's own task is woken, which awaits it from here on.
        inner.add_done_callback(lambda _: seen.append(waits_elsewhere(main, set())))
        await (asyncio.gather(inner) if gathered else inner)

    async def test(gathered: bool) -> None:
        nonlocal main
        main = asyncio.ensure_future(function(gathered))
        await main

    main: asyncio.Future[None]
    for gathered in (False, True):
        asyncio.run(test(gathered))
    assert seen == [True, True]
