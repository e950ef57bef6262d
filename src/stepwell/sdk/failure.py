"""Users' exceptions as errors on the wire: name, message, stack; whether to try again, and when."""

from __future__ import annotations

import traceback

import msgspec

from stepwell.errors import NonRetriableError, RetryAfterError, StepError, UsageError
from stepwell.protocol.answers import RETRY_AFTER_MAX_MS, RETRY_AFTER_MIN_MS
from stepwell.protocol.codec import Json
from stepwell.protocol.failures import error_json
from stepwell.sdk.durations import duration_ms

STACK_CHARS_MAX = 16_000


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What an exception says."""

    error: Json
    retriable: bool
    retry_after_ms: int | None = None


def step_failure(error: BaseException) -> Failure:
    """The failure of a step."""
    retriable = not isinstance(error, NonRetriableError | UsageError)
    return Failure(error=_json(error), retriable=retriable, retry_after_ms=_retry_after_ms(error))


def failure_of(error: BaseException) -> Failure:
    """The failure of a function. A `StepError` that nobody caught is final, for its step has had its tries."""
    single = error
    while isinstance(single, BaseExceptionGroup) and len(single.exceptions) == 1:
        single = single.exceptions[0]
    return Failure(error=_json(single, shown=error), retriable=not _is_final(error), retry_after_ms=_retry_after_ms(single))


def _is_final(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_final(inner) for inner in error.exceptions)
    return isinstance(error, NonRetriableError | UsageError | StepError)


def _retry_after_ms(error: BaseException) -> int | None:
    if not isinstance(error, RetryAfterError):
        return None
    try:
        wanted = duration_ms(error.after, "RetryAfterError: after")
    except UsageError:
        # Said wrongly by code that is failing anyway: the usual backoff applies.
        return None
    return int(min(max(wanted, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS))


def _json(error: BaseException, shown: BaseException | None = None) -> Json:
    name, message = type(error).__name__, _message(error)
    if isinstance(error, StepError):
        name, message = error.name, error.message
    return error_json(name, message, stack_of(shown or error))


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its message cannot be read: {type(broken).__name__})"


def stack_of(error: BaseException) -> str:
    """The traceback, causes included; the end of one that is too long."""
    try:
        text = "".join(traceback.TracebackException(type(error), error, error.__traceback__, compact=True).format())
    except Exception as broken:
        return f"(the traceback cannot be shown: {type(broken).__name__})"
    return text if len(text) <= STACK_CHARS_MAX else "…" + text[-STACK_CHARS_MAX:]
