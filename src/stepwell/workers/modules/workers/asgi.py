"""`workers.asgi`: ASGI applications behind `fetch`."""

from typing import Any

from stepwell.workers.gateway.asgi import entrypoint, fetch, websocket
from stepwell.workers.gateway.options import EncodeBody, Options


def __getattr__(name: str) -> Any:
    """`env`: a dependency of FastAPI's that gives the Worker's `env`."""
    if name != "env":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import fastapi

    async def env(request: fastapi.Request) -> Any:
        return request.scope["env"]

    return fastapi.Depends(env)


__all__ = ["EncodeBody", "Options", "entrypoint", "fetch", "websocket"]
