"""Every exception. A type says who must act and what is known; a message says what happened, with which values, and what to do.

Exception
└── Error
    ├── UsageError            fix your code or configuration
    │   └── ExpressionError   an expression that cannot be compiled
    ├── ProtocolError         the peer broke the agreement; has a status to answer with
    │   └── QueueFull         more waits than the operator allows: send again later
    ├── NotFound              there is no such run, event or function
    ├── RunHasEnded           the run cannot be changed any more
    ├── EvaluationError       an expression met values it cannot work on
    ├── Conflict              nothing was committed: retry
    ├── StoreUnavailable      the outcome is unknown: retry, inputs are idempotent
    │   └── StoreFull         nothing was committed, for want of space: make room
    ├── StoreRefused          the database file cannot be used: locked, foreign, corrupt, full
    │   └── StaleFence        the file was claimed by somebody newer
    ├── SqlError              a statement of yours failed; nothing of its transaction is stored
    ├── CallError             user code could not be reached, or answered nonsense
    │   └── RunPaused         a checkpoint's steps are saved, and its call is to end with them
    ├── NonRetriableError     raised by user code: do not try again
    ├── RetryAfterError       raised by user code: try again after a while
    ├── StepError             a step failed for good; user code may catch it
    │   └── InvokeError       an invoked function failed
    ├── ActorError            an actor's method raised; also an instance of what it raised, where that type is known
    │   └── ActorLost         the actor's process ended, and what became of the call is not known
    ├── Cancelled             the run was cancelled
    └── WorkerDied            a call was lost with its process too often
BaseException
└── Unwind                    takes a coroutine down without `except Exception` seeing it
    ├── Superseded            the call's lease is over; somebody else has the run
    └── Parked                the coroutine is given up and will be replayed
"""

from __future__ import annotations


class Error(Exception):
    """The root of what Stepwell raises."""


class UsageError(Error):
    """Your code or configuration is wrong; the message names what and the fix."""


class ExpressionError(UsageError):
    """An expression cannot be compiled; names the position."""


class EvaluationError(Error):
    """An expression met values that it cannot work on."""


class ProtocolError(Error):
    """A peer broke the agreement. `status` is the HTTP status to answer with, `code` a stable name where there is one."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class QueueFull(ProtocolError):
    """More waits than the operator allows: nothing was stored. `retry_after_s` says when to send again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, 429, "queue_full")
        self.retry_after_s = retry_after_s


class NotFound(Error):
    """There is no such thing."""


class RunHasEnded(Error):
    """The run has ended and cannot be changed."""


class Conflict(Error):
    """Nothing was committed; the same inputs may be tried again."""


class StoreUnavailable(Error):
    """The store did not answer; what became of the commit is unknown, and the same inputs may be sent again."""


class StoreFull(StoreUnavailable):
    """The disk is full or read-only: nothing was committed. Work goes on by itself when there is room."""


class StoreRefused(Error):
    """The database cannot be used as it is; nothing was changed in it."""


class StaleFence(StoreRefused):
    """The file was claimed with a greater fence: who has the smaller one changes nothing in it any more."""


class SqlError(Error):
    """A statement failed. The message is SQLite's, in Cloudflare's form; `code` its name, like `SQLITE_CONSTRAINT_UNIQUE`."""

    def __init__(self, message: str, code: str = "SQLITE_ERROR") -> None:
        super().__init__(message)
        self.code = code


class CallError(Error):
    """User code could not be reached. `code` is the protocol's name for it (inngest-protocol §4.7)."""

    def __init__(self, message: str, code: str = "http_unreachable") -> None:
        super().__init__(message)
        self.code = code


class RunPaused(CallError):
    """The steps of a checkpoint are saved, and its call is to end with them, since somebody has paused the run."""


class NonRetriableError(Error):
    """Raise it in a step or function: the failure is final, no retry follows."""


class RetryAfterError(Error):
    """Raise it in a step or function: try again, but not before `after` has passed.

    `after`: seconds from now, as a `timedelta`, or a string like `"30s"`, `"1h30m"`.
    """

    def __init__(self, message: str, after: object) -> None:
        super().__init__(message)
        self.after = after


class StepError(Error):
    """A step failed for good. Catch it to go on without the step; uncaught it fails the run."""

    def __init__(self, name: str, message: str, stack: str | None = None, step_id: str = "") -> None:
        super().__init__(message)
        self.name, self.message, self.stack, self.step_id = name, message, stack, step_id


class InvokeError(StepError):
    """An invoked function failed."""


class ActorError(Error):
    """An actor's method raised. `name` and `message` are the exception's, `properties` its own; `stack` is where it was raised.

    It is an instance of the type that was raised as well, where that type is known here. `reset`: the actor has lost what it had in
    memory; what it has stored stays.
    """

    name: str
    message: str
    type: str
    stack: str
    properties: dict[str, object]
    reset: bool

    def __str__(self) -> str:
        return self.message


class ActorLost(ActorError):
    """The process that an actor lived in has ended with the call under way: it may have been done, or not."""


class Cancelled(Error):
    """The run was cancelled."""


class WorkerDied(Error):
    """A call was lost with the process that made it, too often."""


class Unwind(BaseException):
    """Takes a coroutine down; not an `Exception`, so that user code does not catch it by accident."""


class Superseded(Unwind):
    """The call's lease is over: what it reports would change nothing."""


class Parked(Unwind):
    """The coroutine is given up; the run is replayed when it goes on."""
