"""Durable background jobs and workflows: an `App` with functions, cut into steps that are checkpointed, retried and replayable."""

from stepwell.errors import (
    ActorError,
    ActorLost,
    CallError,
    Cancelled,
    Error,
    InvokeError,
    NonRetriableError,
    NotFound,
    ProtocolError,
    RetryAfterError,
    RunHasEnded,
    SqlError,
    StepError,
    UsageError,
    WorkerDied,
)
from stepwell.sdk import VERSION as __version__
from stepwell.sdk import ai, sql
from stepwell.sdk.actors.actor import Actor, AlarmInfo
from stepwell.sdk.actors.storage import Storage, Transaction
from stepwell.sdk.app import App
from stepwell.sdk.batch import Message, MessageBatch
from stepwell.sdk.connect import connect
from stepwell.sdk.context import Context, FailureContext, SyncContext, SyncFailureContext
from stepwell.sdk.event import Event, ReceivedEvent
from stepwell.sdk.function import Function
from stepwell.sdk.kv import Kv, KvKey, KvPage, KvValue
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
from stepwell.sdk.queues import Queue, message
from stepwell.sdk.runs import RunHandle, SyncRunHandle
from stepwell.sdk.serve import serve, serve_django, serve_wsgi
from stepwell.sdk.tools.fetch import FetchResponse
from stepwell.sdk.tools.waits import Signal

__all__ = [
    "Actor",
    "ActorError",
    "ActorLost",
    "AlarmInfo",
    "App",
    "Batch",
    "CallError",
    "Cancelled",
    "Concurrency",
    "Context",
    "Debounce",
    "Error",
    "Event",
    "FailureContext",
    "FetchResponse",
    "Function",
    "InvokeError",
    "Kv",
    "KvKey",
    "KvPage",
    "KvValue",
    "Message",
    "MessageBatch",
    "NonRetriableError",
    "NotFound",
    "ProtocolError",
    "Queue",
    "RateLimit",
    "ReceivedEvent",
    "RetryAfterError",
    "RunHandle",
    "RunHasEnded",
    "Signal",
    "Singleton",
    "SqlError",
    "StepError",
    "Storage",
    "SyncContext",
    "SyncFailureContext",
    "SyncRunHandle",
    "Throttle",
    "Timeouts",
    "Transaction",
    "UsageError",
    "WorkerDied",
    "__version__",
    "ai",
    "cancel",
    "connect",
    "cron",
    "message",
    "on",
    "serve",
    "serve_django",
    "serve_wsgi",
    "sql",
]
