"""Models that `ctx.step.ai.infer` asks: where a provider is, how it wants its key, what every request to it holds.

The request is made by the server, as a step, while nothing of the run is held here. Keys go with the request and are stored nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from stepwell.errors import UsageError

Headers = dict[str, str]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model behind HTTP. `format` says how the key is sent: `openai-chat` and others as a bearer token, `anthropic`, `gemini`, `bedrock`.

    `body` is what each request holds beside the one of `infer`, whose fields win.
    """

    url: str
    format: str = "openai-chat"
    auth_key: str | None = None
    headers: Headers = {}
    body: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<model {self.format} at {self.url}>"


def openai(model: str, *, auth_key: str | None = None, base_url: str = "https://api.openai.com/v1", **body: Any) -> Model:
    """A chat model of OpenAI's, or of any server that speaks its API. The key: `OPENAI_API_KEY` where none is given."""
    return Model(url=_joined(base_url, "chat/completions"), auth_key=_key(auth_key, "OPENAI_API_KEY"), body={"model": model, **body})


def anthropic(
    model: str,
    *,
    max_tokens: int,
    auth_key: str | None = None,
    base_url: str = "https://api.anthropic.com/v1",
    version: str = "2023-06-01",
    **body: Any,
) -> Model:
    """A model of Anthropic's, which wants `max_tokens`. The key: `ANTHROPIC_API_KEY` where none is given."""
    return Model(
        url=_joined(base_url, "messages"),
        format="anthropic",
        auth_key=_key(auth_key, "ANTHROPIC_API_KEY"),
        headers={"anthropic-version": version},
        body={"model": model, "max_tokens": max_tokens, **body},
    )


def gemini(
    model: str, *, auth_key: str | None = None, base_url: str = "https://generativelanguage.googleapis.com/v1beta", **body: Any
) -> Model:
    """A model of Google's. The key: `GEMINI_API_KEY` where none is given."""
    url = _joined(base_url, f"models/{model}:generateContent")
    return Model(url=url, format="gemini", auth_key=_key(auth_key, "GEMINI_API_KEY"), body=body)


def _key(given: str | None, variable: str) -> str:
    key = given or os.environ.get(variable)
    if not key:
        raise UsageError(f"the model has no key: give auth_key=…, or set {variable}")
    return key


def _joined(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}"


def merged(model: Model, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request to the model."""
    return {**model.body, **body}
