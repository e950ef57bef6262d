"""Durable background jobs and workflows: an `App` with functions, cut into steps that are checkpointed, retried and replayable."""

from stepwell.errors import (
    Cancelled,
    Error,
    InvokeError,
    NonRetriableError,
    ProtocolError,
    RetryAfterError,
    StepError,
    UsageError,
    WorkerDied,
)
from stepwell.sdk.app import App
from stepwell.sdk.context import Context
from stepwell.sdk.options import (
    Batch,
    Concurrency,
    Debounce,
    Event,
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
    "Cancelled",
    "Concurrency",
    "Context",
    "Debounce",
    "Error",
    "Event",
    "InvokeError",
    "NonRetriableError",
    "ProtocolError",
    "RateLimit",
    "RetryAfterError",
    "Singleton",
    "StepError",
    "Throttle",
    "Timeouts",
    "UsageError",
    "WorkerDied",
    "cancel",
    "cron",
    "on",
    "serve",
]

__version__ = "0.1.0"
