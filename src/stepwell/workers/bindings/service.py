"""Another Worker as a binding: `env.AUTH.fetch(request)`, `await env.AUTH.check(token)`, over the address of its project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell.errors import UsageError
from stepwell.net.http_errors import HttpError
from stepwell.workers import wire
from stepwell.workers.bindings.calling import begins
from stepwell.workers.errors import BindingError
from stepwell.workers.rpc import python_from_rpc, python_to_rpc
from stepwell.workers.web.content import content_of, headers_of
from stepwell.workers.web.fetch import OURS, TIME_MAX_S, pool, response_of
from stepwell.workers.web.request import Request
from stepwell.workers.web.response import Response

RPC = "/cdn-cgi/stepwell/rpc"
TOKEN, ENTRYPOINT, URL = "x-stepwell-token", "x-stepwell-entrypoint", "x-stepwell-url"
"""Headers of requests between projects; those that come from elsewhere are taken for what they are, headers of a request."""


class Service:
    """An entrypoint of another project."""

    def __init__(self, name: str, address: str | None, token: str, entrypoint: str | None) -> None:
        self._name, self._address, self._token, self._entrypoint = name, address, token, entrypoint or "Default"

    @begins
    async def fetch(self, resource: Request | str, **options: Any) -> Response:
        """The response of its `fetch`."""
        request = Request(resource, **options) if options or not isinstance(resource, Request) else resource
        body = await content_of(request).read()
        own = [(TOKEN, self._token), (ENTRYPOINT, self._entrypoint), (URL, request.url)]
        headers = [(name, value) for name, value in headers_of(request) if name not in OURS]
        answer = await self._asked(str(request.method), "/", [*headers, *own], body)
        return response_of(answer, request.url)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        @begins
        async def method(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, args, kwargs)

        return method

    async def _call(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        sent = [python_to_rpc(argument) for argument in args]
        named = {key: python_to_rpc(argument) for key, argument in kwargs.items()}
        body = await wire.encode(wire.Call(self._entrypoint, method, sent, named))
        answer = await self._asked("POST", RPC, [(TOKEN, self._token)], body)
        if answer.status != 200:
            raise BindingError(f"the call of {method} at service {self._name!r} was answered with {answer.status}")
        return python_from_rpc(wire.decode_outcome(answer.body))

    async def _asked(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Any:
        if self._address is None:
            raise BindingError(
                f"the service {self._name!r} does not run: give its folder as well, as in stepwell workers dev THIS THAT, and mind its name"
            )
        try:
            return await pool().request(
                method, self._address + path, headers=headers, body=body, timeout_s=TIME_MAX_S, resend=method == "GET", follow=False
            )
        except (HttpError, UsageError) as error:
            raise BindingError(f"the service {self._name!r} could not be reached: {error}") from error

    def __repr__(self) -> str:
        return f"<service {self._name}>"
