"""Steps that run code here: a user's function, or a request of the SDK's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.errors import UsageError
from stepwell.protocol.codec import Json
from stepwell.sdk.request import Request
from stepwell.sdk.serializer import ANY, codec_of, hint_of, result_codec
from stepwell.sdk.threads import in_thread, is_async
from stepwell.sdk.tools.options import StepOptions

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def running(request: Request, options: StepOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    """The request runs a function; a plain one in a thread."""
    plain = getattr(fn, "_stepwell_plain", fn)
    _give(request, plain, args, kwargs)
    request.edit = functools.partial(_edit, request, plain, kwargs)
    request.codec = result_codec(plain)
    options.apply(request)
    return request


def _give(request: Request, plain: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if is_async(plain):
        request.fn = functools.partial(plain, *args, **kwargs)
    else:
        request.fn = functools.partial(_run_plain, plain, args, kwargs)


class _Edited(msgspec.Struct):
    input: list[msgspec.Raw]


def _edit(request: Request, plain: Callable[..., Any], kwargs: dict[str, Any], memo: Json) -> None:
    """Arguments in place of those of the call, each as its parameter is annotated. Raises `UsageError` for one that does not fit."""
    given = msgspec.json.decode(memo, type=_Edited).input
    try:
        names = [parameter.name for parameter in inspect.signature(plain).parameters.values() if parameter.kind in _BY_PLACE]
    except (TypeError, ValueError):
        names = []  # a function of C's that does not say what it takes
    args = []
    for n, raw in enumerate(given):
        codec = codec_of(hint_of(plain, names[n])) if n < len(names) else ANY
        try:
            args.append(codec.decode(bytes(raw)))
        except UsageError as error:
            raise UsageError(f"step {request.id!r}: the edited input's argument {n}: {error}") from error
    _give(request, plain, tuple(args), {name: value for name, value in kwargs.items() if name not in names[: len(args)]})


async def _run_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await in_thread(functools.partial(fn, *args, **kwargs))
    return await result if inspect.isawaitable(result) else result
