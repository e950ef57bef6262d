"""Whether a registration can be taken: what of it only the engine can judge, before a row of it is written (inngest-protocol §3, §10).

Shapes and bounds are checked where a registration is read (`protocol/config_reader.py`); here it is known what an expression may say,
and which functions others have.
"""

from __future__ import annotations

from collections.abc import Iterator

from stepwell.engine.expression import check_restricted, compile_expression
from stepwell.engine.registry import Registry
from stepwell.errors import ExpressionError, ProtocolError
from stepwell.protocol.functions import FunctionConfig, Registration

OWN = ("event",)
BOTH = ("async", "event")
"""What the expressions of cancel rules see: the run's event, and the one that may end it."""


def check_registration(registry: Registry, registration: Registration, replaced: frozenset[str]) -> None:
    """Raise `ProtocolError` naming the function, the field, its value and the fix. `replaced`: apps that this one takes the place of."""
    check_consumers(registry, registration, replaced)
    for config in registration.functions:
        for field, text, variables in expressions(config):
            try:
                compiled = compile_expression(text, variables)
                if variables is BOTH:
                    check_restricted(compiled)
            except ExpressionError as error:
                raise ProtocolError(f"function {config.id!r}: {field}: {error}") from None
        owner = registry.functions.get(config.id)
        if owner is None or owner.row.archived or owner.row.app_name in (registration.app_name, *replaced):
            continue
        raise ProtocolError(
            f"function {config.id!r} belongs to the app {owner.row.app_name!r}: give this one another id, "
            f"or remove that app first (stepwell apps remove {owner.row.app_name})"
        )


def check_consumers(registry: Registry, registration: Registration, replaced: frozenset[str]) -> None:
    """Raise `ProtocolError` where a queue would go to two functions."""
    taken = {
        queue: function.id
        for queue, function in registry.consumers.items()
        if function.row.app_name not in (registration.app_name, *replaced)
    }
    for config in registration.functions:
        for trigger in config.triggers:
            if trigger.queue is not None and taken.setdefault(trigger.queue, config.id) != config.id:
                raise ProtocolError(
                    f"queue {trigger.queue!r} goes to the functions {taken[trigger.queue]!r} and {config.id!r}: a queue has one consumer; "
                    "send to a queue of its own for each"
                )


def expressions(config: FunctionConfig) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every expression of a function: its field, its text, and the variables it may use."""
    for i, trigger in enumerate(config.triggers):
        if trigger.expression is not None:
            yield f"triggers[{i}].expression", trigger.expression, OWN
    for i, limit in enumerate(config.concurrency):
        if limit.key is not None:
            yield f"concurrency[{i}].key", limit.key, OWN
    for i, rule in enumerate(config.cancel):
        if rule.where is not None:
            yield f"cancel[{i}].if", rule.where, BOTH
    if config.batch is not None and config.batch.where is not None:
        yield "batchEvents.if", config.batch.where, OWN
    for field, text in (
        ("throttle.key", config.throttle and config.throttle.key),
        ("rateLimit.key", config.rate_limit and config.rate_limit.key),
        ("idempotency", config.idempotency),
        ("debounce.key", config.debounce and config.debounce.key),
        ("batchEvents.key", config.batch and config.batch.key),
        ("priority.run", config.priority),
        ("singleton.key", config.singleton and config.singleton.key),
    ):
        if text:
            yield field, text, OWN
