"""What the use of models costs, by a table of list prices (`prices.json`, dollars for a million tokens). An estimate, made when shown."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import msgspec

from stepwell.protocol.metadata import AI, merged


class Price(msgspec.Struct, frozen=True):
    """Dollars for a million tokens. `cached`: of input that the provider had in its cache."""

    input: float
    output: float
    cached: float | None = None


@cache
def prices() -> dict[str, Price]:
    """Prices by the beginning of the model's name."""
    text = (resources.files("stepwell.server.trace") / "prices.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, Price])


def price_of(model: str) -> Price | None:
    """The price of a model: of the longest known name that its own begins with, a provider's prefix (`openai/`) aside."""
    name = model.lower().rpartition("/")[2]
    known = max((prefix for prefix in prices() if name.startswith(prefix)), key=len, default=None)
    return None if known is None else prices()[known]


def with_cost(values: dict[str, Any]) -> dict[str, Any]:
    """The values with their `estimated_cost` in dollars, where model and tokens are told and the price is known."""
    model = next((name for key in ("response_model", "request_model", "model") if isinstance(name := values.get(key), str)), "")
    price = price_of(model) if model else None
    if price is None or isinstance(values.get("estimated_cost"), int | float):
        return values
    given, made, cached = (_count(values, key) for key in ("input_tokens", "output_tokens", "cache_read_tokens"))
    if not given and not made:
        return values
    cached = min(cached, given)
    cost = (given - cached) * price.input + cached * (price.input if price.cached is None else price.cached) + made * price.output
    return {**values, "estimated_cost": round(cost / 1_000_000, 10)}


def _count(values: dict[str, Any], key: str) -> float:
    value = values.get(key)
    return max(value, 0) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def summed(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The use of models by all parts of a step together."""
    total: dict[str, Any] = {}
    for part in parts:
        total = merged(AI, total, part)
    return total
