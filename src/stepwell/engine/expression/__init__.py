"""Expressions in CEL, in the protocol's dialect (inngest-protocol §10): compiled once, evaluated over decoded events."""

from stepwell.engine.expression.binding import equality, field, lookup_text, pruned
from stepwell.engine.expression.expression import Expression, check_restricted, compile_expression, key_text

__all__ = ["Expression", "check_restricted", "compile_expression", "equality", "field", "key_text", "lookup_text", "pruned"]
