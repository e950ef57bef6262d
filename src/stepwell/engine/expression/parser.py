"""From tokens to a tree: the CEL grammar, by precedence."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.engine.expression.tokens import Token, tokenize
from stepwell.errors import ExpressionError

DEPTH_MAX = 64
"""How deep parentheses, calls and lists may be nested."""

_BINARY = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
MACROS = frozenset(("all", "exists", "exists_one", "map", "filter"))


class Node(msgspec.Struct, frozen=True):
    """A part of the tree: `kind` says what, `value` its name, literal or operator, `parts` what it is made of."""

    kind: str
    value: Any
    parts: tuple[Node, ...] = ()
    at: int = 0


def parse(text: str) -> Node:
    """The tree of an expression. Raises `ExpressionError` naming what is wrong and where."""
    parser = _Parser(text)
    tree = parser.ternary()
    parser.expect_end()
    return tree


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._at, self._depth = text, tokenize(text), 0, 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _error(self, what: str) -> ExpressionError:
        token = self._next
        found = "its end" if token.kind == "end" else repr(token.value)
        return ExpressionError(f"{self._text!r}: {what} at {token.at + 1}, but there is {found}")

    def _take(self, *ops: str) -> str | None:
        token = self._next
        if token.kind == "op" and token.value in ops:
            self._at += 1
            return str(token.value)
        return None

    def _expect(self, op: str) -> None:
        if self._take(op) is None:
            raise self._error(f"expected {op!r}")

    def expect_end(self) -> None:
        if self._next.kind != "end":
            raise self._error("expected the end")

    def ternary(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionError(f"{self._text[:60]!r}: nested more than {DEPTH_MAX} deep")
        at = self._next.at
        node = self._binary(0)
        if self._take("?"):
            then = self.ternary()
            self._expect(":")
            node = Node("ternary", None, (node, then, self.ternary()), at)
        self._depth -= 1
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_BINARY):
            return self._unary()
        node = self._binary(level + 1)
        while (op := self._take(*_BINARY[level])) is not None:
            node = Node("binary", op, (node, self._binary(level + 1)), self._next.at)
        return node

    def _unary(self) -> Node:
        ops = []
        at = self._next.at
        while (op := self._take("!", "-")) is not None:
            ops.append(op)
            if len(ops) > DEPTH_MAX:
                raise ExpressionError(f"{self._text[:60]!r}: more than {DEPTH_MAX} signs in a row")
        node = self._member()
        for op in reversed(ops):
            if op == "-" and node.kind == "literal" and isinstance(node.value, int | float) and not isinstance(node.value, bool):
                node = Node("literal", -node.value, (), at)
            else:
                node = Node("unary", op, (node,), at)
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            at = self._next.at
            if self._take("."):
                name = self._name()
                if self._take("("):
                    node = Node("method", name, (node, *self._list(")")), at)
                    self._check_macro(node)
                else:
                    node = Node("select", name, (node,), at)
            elif self._take("["):
                node = Node("index", None, (node, self.ternary()), at)
                self._expect("]")
            else:
                return node

    def _check_macro(self, node: Node) -> None:
        if node.value in MACROS:
            wanted = (2, 3) if node.value == "map" else (2,)
            if len(node.parts) - 1 not in wanted or node.parts[1].kind != "name":
                raise ExpressionError(f"{self._text!r}: {node.value} takes a variable and an expression, like list.{node.value}(x, x > 1)")

    def _primary(self) -> Node:
        token = self._next
        if token.kind == "literal":
            self._at += 1
            return Node("literal", token.value, (), token.at)
        if token.kind == "name":
            self._at += 1
            if self._take("("):
                node = Node("call", token.value, tuple(self._list(")")), token.at)
                if token.value == "has" and (len(node.parts) != 1 or node.parts[0].kind not in ("select", "index")):
                    raise ExpressionError(f"{self._text!r}: has takes a field, like has(event.data.x)")
                return node
            return Node("name", token.value, (), token.at)
        if self._take("("):
            node = self.ternary()
            self._expect(")")
            return node
        if self._take("["):
            return Node("list", None, tuple(self._list("]")), token.at)
        if self._take("{"):
            return Node("map", None, tuple(self._entries()), token.at)
        raise self._error("expected a value")

    def _name(self) -> str:
        token = self._next
        if token.kind != "name" and not (token.kind == "op" and token.value == "in"):
            raise self._error("expected a name")
        self._at += 1
        return str(token.value)

    def _list(self, close: str) -> list[Node]:
        nodes: list[Node] = []
        while not self._take(close):
            nodes.append(self.ternary())
            if not self._take(","):
                self._expect(close)
                break
        return nodes

    def _entries(self) -> list[Node]:
        nodes: list[Node] = []
        while not self._take("}"):
            nodes.append(self.ternary())
            self._expect(":")
            nodes.append(self.ternary())
            if not self._take(","):
                self._expect("}")
                break
        return nodes
