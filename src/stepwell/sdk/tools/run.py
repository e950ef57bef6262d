"""Steps that run code here: a user's function, or a request of the SDK's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from stepwell.sdk.request import Request
from stepwell.sdk.serializer import result_codec
from stepwell.sdk.threads import in_thread, is_async
from stepwell.sdk.tools.options import StepOptions


def running(request: Request, options: StepOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    """The request runs a function; a plain one in a thread."""
    plain = getattr(fn, "_stepwell_plain", fn)
    if is_async(plain):
        request.fn = functools.partial(plain, *args, **kwargs)
    else:
        request.fn = functools.partial(_run_plain, plain, args, kwargs)
    request.codec = result_codec(plain)
    options.apply(request)
    return request


async def _run_plain(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = await in_thread(functools.partial(fn, *args, **kwargs))
    return await result if inspect.isawaitable(result) else result
