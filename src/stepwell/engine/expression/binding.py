"""What a condition on two events can be found by: the field of the other event that has to equal a value of one's own.

`event.data.id == async.data.id && async.data.ok` can be true only where `async.data.id` has the value that `event.data.id` has now:
such waits are kept under that value, so that an event finds them without looking at the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stepwell.engine.expression.expression import Expression, Scope, compile_node, path_of
from stepwell.engine.expression.parser import Node
from stepwell.engine.expression.tokens import Token, tokenize
from stepwell.engine.expression.values import is_number
from stepwell.errors import EvaluationError

OTHER = "async"
OWN = "event"
SHOWN_CHARS_MAX = 1000
"""What is shown of a field in place of its name; a longer one keeps its name."""
TIMES = frozenset(("now", "now_plus", "now_minus"))


def equality(expression: Expression, own: Mapping[str, Any], now_ms: int) -> tuple[tuple[str, ...], str] | None:
    """The other event's field that the condition wants equal to a known value, and that value's text; `None` where it wants none.

    `own` is one's own event. Only a comparison that the whole condition depends on counts: one in a conjunction.
    """
    for node in _conjuncts(expression.tree):
        if node.kind != "binary" or node.value != "==":
            continue
        for theirs, ours in (node.parts, node.parts[::-1]):
            path = path_of(theirs)
            if path is None or path[0] != OTHER or len(path) < 2 or _varies(ours):
                continue
            try:
                value = compile_node(ours)(Scope({OWN: own}, now_ms))
            except (EvaluationError, RecursionError):
                return None
            text = lookup_text(value)
            return None if text is None else (path[1:], text)
    return None


def lookup_text(value: Any) -> str | None:
    """A text that values have in common exactly if the dialect takes them to be equal; `None` for values that have none."""
    match value:
        case None:
            return "n"
        case bool():
            return "t" if value else "f"
        case str():
            return "s" + value
        case list():
            parts = [lookup_text(part) for part in value]
            return None if None in parts else "l" + "".join(f"{len(part)}:{part}" for part in parts if part is not None)
        case dict():
            texts = [(str(key), lookup_text(part)) for key, part in sorted(value.items(), key=lambda item: str(item[0]))]
            if any(text is None for _, text in texts):
                return None
            return "m" + "".join(f"{len(key)}:{key}{len(text)}:{text}" for key, text in texts if text is not None)
        case _ if is_number(value):
            number = float(value) if isinstance(value, int) and abs(value) <= 2**53 else value
            return f"d{int(number)}" if number == number and abs(number) != float("inf") and number == int(number) else f"d{number!r}"
        case _:
            return None


def field(body: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of decoded JSON; what is missing is null."""
    for name in path:
        if not isinstance(body, dict):
            return None
        body = body.get(name)
    return body


def pruned(expression: Expression, own: Mapping[str, Any]) -> Any:
    """As much of one's own event as the condition reads."""
    return _prune(own, [path[1:] for path in expression.paths if path[0] == OWN])


def _prune(value: Any, paths: list[tuple[str, ...]]) -> Any:
    if not isinstance(value, dict) or () in paths:
        return value
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        by_name.setdefault(path[0], []).append(path[1:])
    return {name: _prune(value[name], rest) for name, rest in by_name.items() if name in value}


def interpolated(text: str, own: Mapping[str, Any]) -> str:
    """The condition as people read it: the fields of one's own event replaced by what they are (§8.3)."""
    tokens = tokenize(text)
    parts: list[str] = []
    done = i = 0
    while i < len(tokens):
        token = tokens[i]
        selected = i > 0 and (tokens[i - 1].kind, tokens[i - 1].value) == ("op", ".")
        if token.kind != "name" or token.value != OWN or selected:
            i += 1
            continue
        path, i = _path_from(tokens, i)
        value = msgspec.json.encode(field(own, path)).decode()
        if path and len(value) <= SHOWN_CHARS_MAX:
            end = tokens[i - 1]
            parts += [text[done : token.at], value]
            done = _end_of(text, end)
    return "".join([*parts, text[done:]])


def _path_from(tokens: list[Token], i: int) -> tuple[tuple[str, ...], int]:
    """The fields that are selected from the token on, and where they end. A name that is called is no field."""
    path: list[str] = []
    i += 1
    while (tokens[i].kind, tokens[i].value) in (("op", "."), ("op", "[")):
        if tokens[i].value == ".":
            if tokens[i + 1].kind != "name" or (tokens[i + 2].kind, tokens[i + 2].value) == ("op", "("):
                break
            path.append(str(tokens[i + 1].value))
            i += 2
        else:
            name, close = tokens[i + 1], tokens[i + 2] if i + 2 < len(tokens) else tokens[-1]
            if name.kind != "literal" or not isinstance(name.value, str) or (close.kind, close.value) != ("op", "]"):
                break
            path.append(name.value)
            i += 3
    return tuple(path), i


def _end_of(text: str, token: Token) -> int:
    return token.at + len(str(token.value))


def _conjuncts(node: Node) -> Iterator[Node]:
    if node.kind == "binary" and node.value == "&&":
        for part in node.parts:
            yield from _conjuncts(part)
    else:
        yield node


def _varies(node: Node) -> bool:
    """Whether the value may be another one when an event comes: it reads that event, or the time."""
    told_then = (node.kind == "name" and node.value == OTHER) or (node.kind == "call" and node.value in TIMES)
    return told_then or any(_varies(part) for part in node.parts)
