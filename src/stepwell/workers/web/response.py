"""Responses: what a handler answers with, and what `fetch` gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from stepwell.workers.web.content import NULL_BODY, Readable, body_of
from stepwell.workers.web.form_data import FormData
from stepwell.workers.web.headers import HeaderList
from stepwell.workers.web.urls import absolute_url

REDIRECT_STATUSES = (301, 302, 303, 307, 308)


class _Json:
    """`await response.json()` reads the body; `Response.json(data)` makes a response."""

    def __get__(self, response: FetchResponse | None, owner: type[FetchResponse]) -> Callable[..., Any]:
        return owner.from_json if response is None else response._json


class FetchResponse(Readable):
    """A response, as `fetch` gives it."""

    status: int
    status_text: str
    url: str = ""
    redirected: bool = False
    type: str = "default"
    encode_body: str = "automatic"
    """Whether a body whose headers say that it is compressed is to be compressed (`automatic`), or is so already (`manual`)."""

    json = _Json()

    @property
    def ok(self) -> bool:
        """Whether the status says so."""
        return 200 <= self.status < 300

    async def string(self) -> str:
        """The body as text."""
        return await self.text()

    async def memoryview(self) -> memoryview:
        """A view of the body's bytes."""
        return memoryview(await self.bytes())

    async def formData(self) -> FormData:
        """As `form_data`."""
        return await self.form_data()

    def raise_for_status(self) -> None:
        """Raise `OSError` for a status from 400 on."""
        if self.status >= 400:
            raise OSError(f"{self.status} {self.status_text}".rstrip() + (f" for url: {self.url}" if self.url else ""))

    def clone(self) -> Response:
        """The same response once more, for another reader of its body."""
        self._body.refuse_used()
        return self._like(self, self._body.share())

    def replace_body(self, body: Any) -> Response:
        """The same response with another body."""
        return self._like(self, body_of(body, "Response")[0])

    @staticmethod
    def _like(response: FetchResponse, body: Any) -> Response:
        made = Response.__new__(Response)
        made.status, made.status_text, made.url, made.redirected = response.status, response.status_text, response.url, response.redirected
        made.type, made.encode_body = response.type, response.encode_body
        made._headers, made._body = response._headers.copy(), body
        return made

    @staticmethod
    def redirect(url: str, status: HTTPStatus | int = HTTPStatus.FOUND) -> Response:
        """A response that sends the client to another address. Raises `ValueError` for a status that does not."""
        if int(status) not in REDIRECT_STATUSES:
            raise ValueError(f"{int(status)} is no status of a redirect: those are {', '.join(map(str, REDIRECT_STATUSES))}")
        return Response(None, int(status), headers={"location": absolute_url(url)})

    @staticmethod
    def from_json(data: Any, status: HTTPStatus | int = HTTPStatus.OK, status_text: str = "", headers: Any = None) -> Response:
        """A response with a value as JSON."""
        response = Response(json.dumps(data).encode(), status, status_text, headers)
        if "content-type" not in response._headers:
            response._headers.append("content-type", "application/json")
        return response


class Response(FetchResponse):
    """A response: `Response("text", status=201, headers={"x-a": "1"})`."""

    def __init__(
        self,
        body: Any = None,
        status: HTTPStatus | int | None = None,
        status_text: str = "",
        headers: Any = None,
        web_socket: Any = None,
    ) -> None:
        if web_socket is not None:
            raise TypeError("a response with web_socket=… cannot be answered: stepwell workers dev serves no WebSockets of Workers")
        if isinstance(body, FetchResponse):
            if status is not None or status_text or headers is not None:
                raise ValueError("Response(response) takes no further arguments: give its body to make another one")
            self.__dict__.update(self._like(body, body._body.share()).__dict__)
            return
        self._body, kind = body_of(body, "Response")
        self.status = 200 if status is None else int(status)
        if not 200 <= self.status <= 599:
            raise ValueError(f"the status of a response is {self.status}; it must be from 200 to 599")
        if self.status in NULL_BODY and not self._body.is_empty:
            raise TypeError(f"a response with status {self.status} has no body")
        self.status_text = status_text
        self._headers = HeaderList(headers)
        if kind is not None and "content-type" not in self._headers:
            self._headers.append("content-type", kind)

    def __repr__(self) -> str:
        told = [f"status={self.status}"]
        told += [f"{name}={value!r}" for name, value in (("status_text", self.status_text), ("url", self.url)) if value]
        if (kind := self._headers.get("content-type")) is not None:
            told.append(f"content_type={kind!r}")
        return f"Response({', '.join(told)})"
