"""Requests: those that come to a handler, and those that it sends."""

from __future__ import annotations

from collections.abc import AsyncIterable
from http import HTTPMethod
from typing import Any

from stepwell.workers.web.content import Readable, body_of
from stepwell.workers.web.headers import HeaderList
from stepwell.workers.web.streams import Body
from stepwell.workers.web.urls import absolute_url

METHODS_WITHOUT_BODY = ("GET", "HEAD")
REDIRECTS = ("follow", "error", "manual")
FORBIDDEN = ("CONNECT", "TRACE")


class Request(Readable):
    """A request: `Request("https://example.com", method="POST", body="…")`, or another one with changes.

    Options are `method`, `headers`, `body`, `redirect` and `cf`; those that only browsers have do nothing.
    """

    _method: str
    _url: str

    def __init__(self, input: Request | str, **other_options: Any) -> None:
        before = input if isinstance(input, Request) else None
        self._url = before.url if before is not None else absolute_url(input)
        self._method = _method(other_options.get("method") or (before._method if before is not None else "GET"))
        self.redirect: str = other_options.get("redirect") or (before.redirect if before is not None else "follow")
        if self.redirect not in REDIRECTS:
            raise TypeError(f"redirect is {self.redirect!r}; it must be one of {', '.join(REDIRECTS)}")
        self.cf: Any = other_options.get("cf", before.cf if before is not None else None)
        given = other_options.get("headers")
        self._headers = HeaderList(given) if given is not None or before is None else before._headers.copy()
        content = other_options.get("body")
        if content is None and before is not None:
            before._body.refuse_used()
            self._body, kind = before._body, None
            if not before._body.is_empty:
                # Its body is this request's now, as far as the other one is concerned.
                self._body, before._body = before._body.share(), _read()
        else:
            self._body, kind = body_of(content, "Request")
        if not self._body.is_empty and self._method in METHODS_WITHOUT_BODY:
            raise TypeError(f"a {self._method} request has no body: give another method")
        if kind is not None and "content-type" not in self._headers:
            self._headers.append("content-type", kind)

    @property
    def url(self) -> str:
        """The whole address."""
        return self._url

    @property
    def method(self) -> HTTPMethod | str:
        """The method; a text where Python has no name for it."""
        try:
            return HTTPMethod[self._method]
        except KeyError:
            return self._method

    async def json(self, **kwargs: Any) -> Any:
        """The body as JSON; options are those of `json.loads`."""
        return await self._json(**kwargs)

    def clone(self) -> Request:
        """The same request once more, for another reader of its body."""
        self._body.refuse_used()
        made = Request.__new__(Request)
        made._url, made._method, made.redirect, made.cf = self._url, self._method, self.redirect, self.cf
        made._headers, made._body = self._headers.copy(), self._body.share()
        return made

    def __repr__(self) -> str:
        return f"Request(method={self._method!r}, url={self._url!r})"


def incoming(method: str, url: str, headers: list[tuple[str, str]], body: bytes | AsyncIterable[bytes] | None) -> Request:
    """A request as it came to the server."""
    made = Request.__new__(Request)
    made._url, made._method, made.redirect, made.cf = url, method, "manual", None
    made._headers, made._body = HeaderList(headers), Body(body)
    return made


def _method(method: object) -> str:
    name = method.value if isinstance(method, HTTPMethod) else str(method)
    upper = name.upper()
    if upper in FORBIDDEN:
        raise TypeError(f"{name} is no method that can be sent")
    # As browsers do: names in another case are those that they seem to be, all others stay as they are written.
    return upper if upper in HTTPMethod.__members__ else name


def _read() -> Body:
    body = Body(b"")
    body.used = True
    return body
