"""How a request can fail. A type says what is known: nothing was sent, the time is over, the answer is no answer.

CallError
├── Unreachable   no connection came about: nothing of the request was worked on
├── TimedOut      the answer was not whole in time
├── Broken        the connection ended before the answer was whole: the request may have been worked on
├── Dropped       a kept connection ended before the answer began: it was closed meanwhile, or the other side died over the request
├── TooLarge      the answer is longer than may be
└── NotHttp       the other side does not speak HTTP as it should

The pool puts method and URL before each message.
"""

from __future__ import annotations

from typing import ClassVar

from stepwell.errors import CallError


class HttpError(CallError):
    """The root of what the pool raises; `code` is the protocol's name for it (inngest-protocol §4.7)."""

    name: ClassVar[str] = "http_unreachable"

    def __init__(self, message: str) -> None:
        super().__init__(message, self.name)


class Unreachable(HttpError):
    """No connection came about: the name, the address, TLS or the proxy. Nothing of the request was worked on."""


class TimedOut(HttpError):
    """The answer was not whole in time."""

    name = "request_duration_too_long"


class Broken(HttpError):
    """The connection ended before the answer was whole. The request may have been worked on."""


class Dropped(HttpError):
    """A kept connection ended before anything of the answer came. The request may have been worked on, or never have arrived."""


class TooLarge(HttpError):
    """The answer is longer than may be, as sent or as decoded."""

    name = "output_too_large"


class NotHttp(HttpError):
    """The other side does not speak HTTP as it should."""

    name = "invalid_response"
