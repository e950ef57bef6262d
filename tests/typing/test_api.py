"""The public API's types hold under `mypy --strict`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stepwell

API = Path(__file__).with_name("api.py")
EXPORTED = {
    "Actor",
    "ActorError",
    "ActorLost",
    "AlarmInfo",
    "Storage",
    "Transaction",
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
    "SyncContext",
    "SyncFailureContext",
    "SyncRunHandle",
    "Throttle",
    "Timeouts",
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
}


def test_the_api_type_checks_as_users_write_it() -> None:
    """`api.py` has no error, and every error that it expects is one."""
    checked = subprocess.run([sys.executable, "-m", "mypy", "--strict", str(API)], capture_output=True, text=True, cwd=API.parents[2])
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_exported() -> None:
    """The public API is this list, and each name is there."""
    assert set(stepwell.__all__) == EXPORTED
    for name in stepwell.__all__:
        assert getattr(stepwell, name) is not None
