"""The app as a worker: it connects to the server by itself, and runs functions over that connection (inngest-protocol §9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.sdk.app import App
    from stepwell.sdk.connect.worker import Worker

CONCURRENCY_DEFAULT = 100


def connect(
    *apps: App,
    url: str | None = None,
    max_concurrency: int | None = None,
    instance_id: str | None = None,
    version: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Worker:
    """A worker that runs the functions of these apps: `async with stepwell.connect(app): …`, or `await stepwell.connect(app).run()`.

    It needs no address of its own: it connects to the server's `url` (by default the app's, else `STEPWELL_URL`), and again whenever the
    connection breaks. `max_concurrency` calls run at a time (100 by default; 0 sets no limit). `version` is the app's: while workers
    of several versions are connected, those of the newest get the calls. `instance_id` names the worker, by default host and process.
    """
    from stepwell.sdk.connect.worker import Worker

    return Worker(apps, url=url, max_concurrency=max_concurrency, instance_id=instance_id, version=version, say=say)


__all__ = ["CONCURRENCY_DEFAULT", "connect"]
