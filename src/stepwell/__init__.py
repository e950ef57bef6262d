"""Durable background jobs and workflows: an `App` with functions, cut into steps that are checkpointed, retried and replayable."""

from stepwell.errors import (
    CallError,
    Cancelled,
    Error,
    InvokeError,
    NonRetriableError,
    NotFound,
    ProtocolError,
    RetryAfterError,
    StepError,
    UsageError,
    WorkerDied,
)
from stepwell.sdk import VERSION as __version__
from stepwell.sdk.app import App, Function
from stepwell.sdk.connect import connect
from stepwell.sdk.context import Context, SyncContext
from stepwell.sdk.event import Event, ReceivedEvent
from stepwell.sdk.options import (
    Batch,
    Concurrency,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
    Timeouts,
    cancel,
    cron,
    on,
)
from stepwell.sdk.serve import serve

__all__ = [
    "App",
    "Batch",
    "CallError",
    "Cancelled",
    "Concurrency",
    "Context",
    "Debounce",
    "Error",
    "Event",
    "Function",
    "InvokeError",
    "NonRetriableError",
    "NotFound",
    "ProtocolError",
    "RateLimit",
    "ReceivedEvent",
    "RetryAfterError",
    "Singleton",
    "StepError",
    "SyncContext",
    "Throttle",
    "Timeouts",
    "UsageError",
    "WorkerDied",
    "__version__",
    "cancel",
    "connect",
    "cron",
    "on",
    "serve",
]
