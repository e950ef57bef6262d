"""What the use of models costs is estimated where it can be, and told where it is told."""

from __future__ import annotations

import pytest

from stepwell.server.trace.usage import price_of, prices, summed, with_cost


def test_the_longest_name_that_fits_is_the_model() -> None:
    """With a provider's prefix, a date behind, in any case."""
    assert price_of("gpt-4o-mini-2024-07-18") == prices()["gpt-4o-mini"]
    assert price_of("openai/GPT-4o") == prices()["gpt-4o"] != price_of("gpt-4o-mini")
    assert price_of("claude-opus-4-5-20251101") == prices()["claude-opus-4-5"] and price_of("llama") is None


def test_prices_are_sound() -> None:
    """Dollars for a million tokens: none free, cached input cheaper."""
    for name, price in prices().items():
        assert name == name.lower() and 0 < price.input <= price.output, name
        assert price.cached is None or 0 < price.cached < price.input, name


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        ({"request_model": "gpt-4o", "input_tokens": 1_000_000, "output_tokens": 100_000}, 3.5),
        ({"response_model": "gpt-4o", "request_model": "other", "input_tokens": 1_000_000, "cache_read_tokens": 400_000}, 2.0),
        ({"model": "gemini-1.5-pro", "input_tokens": 1_000_000, "cache_read_tokens": 9_000_000}, 1.25),
        ({"model": "gpt-4o", "output_tokens": 1, "estimated_cost": 7}, 7),
    ],
)
def test_costs(values: dict[str, object], cost: float) -> None:
    """Input, output, input from the cache; a cost that is told stays."""
    assert with_cost(values)["estimated_cost"] == pytest.approx(cost)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": "gpt-4o"},
        {"model": "unheard of", "input_tokens": 1},
        {"model": "gpt-4o", "input_tokens": True, "output_tokens": -5},
        {"model": 7},
    ],
)
def test_what_cannot_be_estimated_is_left_as_it_is(values: dict[str, object]) -> None:
    """No price, no tokens, no model."""
    assert with_cost(values) == values


def test_uses_are_summed() -> None:
    """Counts and costs add up."""
    parts = [{"input_tokens": 1, "estimated_cost": 0.5}, {"input_tokens": 2, "estimated_cost": 0.25, "response_id": "b"}]
    assert summed(parts) == {"input_tokens": 3, "estimated_cost": 0.75, "response_id": "b"}
