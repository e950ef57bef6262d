"""What a Worker finds in `env`: its variables, secrets and bindings. One process runs one Worker, so there is one `env`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from stepwell.workers.rpc import python_from_rpc

_patches: ContextVar[dict[str, Any]] = ContextVar("stepwell_env_patches", default={})  # noqa: B039


class Env:
    """Variables and bindings by name, as attributes. A name that is not there raises `AttributeError`."""

    def __init__(self) -> None:
        self.__dict__["_bound"] = {}

    def __getattr__(self, name: str) -> Any:
        patches = _patches.get()
        if name in patches:
            return patches[name]
        bound: dict[str, Any] = self.__dict__["_bound"]
        if name in bound:
            return bound[name]
        there = ", ".join(sorted(bound)) or "nothing"
        raise AttributeError(f"env has no {name!r}: the wrangler file binds {there}")

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __dir__(self) -> Iterable[str]:
        return sorted({*self.__dict__["_bound"], *_patches.get()})

    def __repr__(self) -> str:
        return f"<env {', '.join(dir(self))}>"


env = Env()
"""The `env` of this process's Worker."""


def bind(values: Mapping[str, Any]) -> None:
    """Say what `env` holds. Objects and lists among variables come as values from JavaScript do."""
    env.__dict__["_bound"] = {name: python_from_rpc(value) for name, value in values.items()}


@contextmanager
def patch_env(d: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None, **kwds: Any) -> Iterator[None]:
    """Have other values in `env` for a while: `with patch_env(API="http://localhost"): …`, in the code inside and what it awaits."""
    token = _patches.set({**_patches.get(), **dict(d or {}), **kwds})
    try:
        yield
    finally:
        _patches.reset(token)
