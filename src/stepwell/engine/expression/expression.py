"""Compiled expressions: a tree turned into closures once, evaluated often, with a bound on the work of one evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from stepwell.engine.expression.functions import FUNCTIONS, call
from stepwell.engine.expression.parser import MACROS, Node, parse
from stepwell.engine.expression.values import add, bounded, equal, is_number, kind, less, text_of
from stepwell.errors import EvaluationError, ExpressionError

TEXT_CHARS_MAX = 8192
WORK_MAX = 100_000
"""Elements that the macros of one evaluation may go over."""


class Scope:
    """The variables of one evaluation, its time, and the work left."""

    __slots__ = ("now_ms", "variables", "work")

    def __init__(self, variables: Mapping[str, Any], now_ms: int) -> None:
        self.variables, self.now_ms, self.work = dict(variables), now_ms, WORK_MAX


Closure = Callable[[Scope], Any]


class Expression:
    """An expression that compiled. `paths` are the fields it reads, as ("event", "data", "amount")."""

    def __init__(self, text: str, tree: Node) -> None:
        self.text, self.tree = text, tree
        self.paths = frozenset(_paths(tree))
        self._run = compile_node(tree)

    def evaluate(self, variables: Mapping[str, Any], *, now_ms: int = 0) -> Any:
        """The value over decoded JSON. Raises `EvaluationError`."""
        try:
            return self._run(Scope(variables, now_ms))
        except RecursionError:
            raise EvaluationError(f"{self.text!r} is nested too deep") from None

    def is_true(self, variables: Mapping[str, Any], *, now_ms: int = 0) -> bool:
        """Whether the value is true; another type or an error is not."""
        try:
            return self.evaluate(variables, now_ms=now_ms) is True
        except EvaluationError:
            return False

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


@functools.lru_cache(maxsize=4096)
def compile_expression(text: str, variables: tuple[str, ...] = ("event",)) -> Expression:
    """The expression of a text, which may use these variables. Raises `ExpressionError`."""
    if len(text) > TEXT_CHARS_MAX:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {TEXT_CHARS_MAX} are taken")
    tree = parse(text)
    _check(tree, frozenset(variables), text)
    return Expression(text, tree)


def _check(node: Node, variables: frozenset[str], text: str) -> None:
    """Every name is a variable, every call a function: what cannot work is refused before it runs."""
    if node.kind == "name" and node.value not in variables:
        raise ExpressionError(f"{text!r}: there is no variable {node.value!r}; there is {', '.join(sorted(variables))}")
    if node.kind in ("call", "method") and node.value not in FUNCTIONS and node.value not in MACROS and node.value != "has":
        raise ExpressionError(f"{text!r}: there is no function {node.value!r}")
    if node.kind == "method" and node.value in MACROS:
        _check(node.parts[0], variables, text)
        for part in node.parts[2:]:
            _check(part, variables | {node.parts[1].value}, text)
        return
    for part in node.parts:
        _check(part, variables, text)


RESTRICTED = frozenset(("int", "uint", "double"))


def check_restricted(expression: Expression) -> None:
    """Raise `ExpressionError` for what a cancel rule may not use: macros, arithmetic, other functions (§10)."""

    def walk(node: Node) -> None:
        if node.kind == "method" or (node.kind == "call" and node.value not in RESTRICTED):
            raise ExpressionError(f"{expression.text!r}: {node.value} cannot be used here; compare fields with ==, <, in, && and ||")
        if node.kind == "binary" and node.value in ("+", "-", "*", "/", "%"):
            raise ExpressionError(f"{expression.text!r}: {node.value} cannot be used here; compare fields with ==, <, in, && and ||")
        for part in node.parts:
            walk(part)

    walk(expression.tree)


def key_text(value: Any) -> str:
    """A key's value as the text it is known by: 1 and 1.0 are one key, null and missing are another."""
    return text_of(value)


def path_of(node: Node) -> tuple[str, ...] | None:
    """The field that a node reads, as ("event", "data", "id"); `None` where it is more than a field."""
    if node.kind == "name":
        return (node.value,)
    if node.kind == "select" or (node.kind == "index" and node.parts[1].kind == "literal" and isinstance(node.parts[1].value, str)):
        head = path_of(node.parts[0])
        return None if head is None else (*head, node.value if node.kind == "select" else node.parts[1].value)
    return None


def _paths(node: Node) -> list[tuple[str, ...]]:
    path = path_of(node)
    if path is not None:
        return [path]
    return [path for part in node.parts for path in _paths(part)]


# From nodes to closures


def compile_node(node: Node) -> Closure:
    """The closure that gives a node's value."""
    return _COMPILERS[node.kind](node)


def _literal(node: Node) -> Closure:
    value = node.value
    if isinstance(value, int) and not isinstance(value, bool):
        bounded(value)
    return lambda scope: value


def _name(node: Node) -> Closure:
    name = node.value
    return lambda scope: scope.variables.get(name)


def _select(node: Node) -> Closure:
    inner, name = compile_node(node.parts[0]), node.value

    def select(scope: Scope) -> Any:
        value = inner(scope)
        return value.get(name) if type(value) is dict else None

    return select


def _index(node: Node) -> Closure:
    inner, index = compile_node(node.parts[0]), compile_node(node.parts[1])

    def select(scope: Scope) -> Any:
        value, key = inner(scope), index(scope)
        if isinstance(value, dict):
            return next((value[name] for name in value if equal(name, key)), None)
        if isinstance(value, list) and is_number(key):
            return value[int(key)] if key == int(key) and 0 <= key < len(value) else None
        return None

    return select


def _unary(node: Node) -> Closure:
    inner = compile_node(node.parts[0])
    if node.value == "!":

        def invert(scope: Scope) -> bool:
            value = inner(scope)
            if value is not None and not isinstance(value, bool):
                raise EvaluationError(f"! of {kind(value)}")
            return not value

        return invert

    def negate(scope: Scope) -> Any:
        value = inner(scope)
        if not is_number(value):
            raise EvaluationError(f"- of {kind(value)}")
        return bounded(-value)

    return negate


def _binary(node: Node) -> Closure:
    a, b, op = compile_node(node.parts[0]), compile_node(node.parts[1]), node.value
    match op:
        case "==":
            return lambda scope: equal(a(scope), b(scope))
        case "!=":
            return lambda scope: not equal(a(scope), b(scope))
        case "<":
            return lambda scope: less(a(scope), b(scope))
        case ">":
            return lambda scope: less(b(scope), a(scope))
        case "<=":
            return lambda scope: _at_most(a(scope), b(scope))
        case ">=":
            return lambda scope: _at_most(b(scope), a(scope))
        case "&&" | "||":
            return _logic(a, b, op)
        case "in":
            return lambda scope: _contains(a(scope), b(scope))
        case "+":
            return lambda scope: add(a(scope), b(scope))
        case _:
            return lambda scope: _arithmetic(op, a(scope), b(scope))


def _at_most(a: Any, b: Any) -> bool:
    return less(a, b) or equal(a, b)


def _logic(a: Closure, b: Closure, op: str) -> Closure:
    """CEL's && and ||: a side that decides wins over an error on the other; null counts as false."""
    decides = op == "||"

    def side(closure: Closure, scope: Scope) -> bool | EvaluationError:
        try:
            value = closure(scope)
        except EvaluationError as error:
            return error
        if value is None:
            return False
        return value if isinstance(value, bool) else EvaluationError(f"{op} of {kind(value)}")

    def decide(scope: Scope) -> bool:
        first = side(a, scope)
        if first is decides:
            return decides
        second = side(b, scope)
        if second is decides:
            return decides
        for outcome in (first, second):
            if isinstance(outcome, EvaluationError):
                raise outcome
        return not decides

    return decide


def _contains(value: Any, container: Any) -> bool:
    if container is None:
        return False
    if isinstance(container, list | dict):
        return any(equal(value, item) for item in container)
    raise EvaluationError(f"in of {kind(container)}")


def _arithmetic(op: str, a: Any, b: Any) -> Any:
    if not (is_number(a) and is_number(b)):
        try:
            if op == "-" and not isinstance(a, bool) and not isinstance(b, bool):
                return a - b  # times and durations
        except TypeError:
            pass
        raise EvaluationError(f"{kind(a)} {op} {kind(b)}")
    try:
        match op:
            case "-":
                return bounded(a - b)
            case "*":
                return bounded(a * b)
            case "/" if isinstance(a, int) and isinstance(b, int):
                return bounded(abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1))
            case "/":
                return a / b
            case _:
                return abs(a) % abs(b) * (1 if a >= 0 else -1)
    except (ZeroDivisionError, OverflowError) as error:
        raise EvaluationError(str(error)) from None


def _ternary(node: Node) -> Closure:
    test, then, other = (compile_node(part) for part in node.parts)

    def choose(scope: Scope) -> Any:
        value = test(scope)
        if value is not None and not isinstance(value, bool):
            raise EvaluationError(f"?: of {kind(value)}")
        return then(scope) if value else other(scope)

    return choose


def _list(node: Node) -> Closure:
    parts = [compile_node(part) for part in node.parts]
    return lambda scope: [part(scope) for part in parts]


def _map(node: Node) -> Closure:
    keys = [compile_node(part) for part in node.parts[::2]]
    values = [compile_node(part) for part in node.parts[1::2]]

    def build(scope: Scope) -> dict[Any, Any]:
        try:
            return {key(scope): value(scope) for key, value in zip(keys, values, strict=True)}
        except TypeError:
            raise EvaluationError("a map's key is a list or a map") from None

    return build


def _call(node: Node) -> Closure:
    if node.value == "has":
        field = compile_node(node.parts[0])
        return lambda scope: field(scope) is not None
    name, args = node.value, [compile_node(part) for part in node.parts]
    return lambda scope: call(name, [arg(scope) for arg in args], scope.now_ms)


def _method(node: Node) -> Closure:
    return _macro(node) if node.value in MACROS else _call(node)


def _macro(node: Node) -> Closure:
    source, name = compile_node(node.parts[0]), node.parts[1].value
    bodies = [compile_node(part) for part in node.parts[2:]]
    macro = node.value

    def elements(scope: Scope) -> list[Any]:
        found = source(scope)
        if found is None:
            return []
        if not isinstance(found, list | dict):
            raise EvaluationError(f"{macro} of {kind(found)}")
        return list(found)

    def each(scope: Scope, body: Closure) -> list[Any]:
        values = []
        shadowed = scope.variables.get(name)
        for element in elements(scope):
            scope.work -= 1
            if scope.work < 0:
                raise EvaluationError(f"more than {WORK_MAX} elements")
            scope.variables[name] = element
            values.append((element, body(scope)))
        scope.variables[name] = shadowed
        return values

    def run(scope: Scope) -> Any:
        outcomes = each(scope, bodies[0])
        truths = [outcome is True for _, outcome in outcomes]
        match macro:
            case "all":
                return all(truths)
            case "exists":
                return any(truths)
            case "exists_one":
                return sum(truths) == 1
            case "filter":
                return [element for element, outcome in outcomes if outcome is True]
            case _ if len(bodies) == 1:
                return [outcome for _, outcome in outcomes]
            case _:
                kept = {i for i, outcome in enumerate(truths) if outcome}
                return [value for i, (_, value) in enumerate(each(scope, bodies[1])) if i in kept]

    return run


_COMPILERS: dict[str, Callable[[Node], Closure]] = {
    "literal": _literal,
    "name": _name,
    "select": _select,
    "index": _index,
    "unary": _unary,
    "binary": _binary,
    "ternary": _ternary,
    "list": _list,
    "map": _map,
    "call": _call,
    "method": _method,
}
