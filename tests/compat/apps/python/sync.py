"""The blocking twin of `programs.py`: the same text without `async` and `await`, over `ContextSync`."""

import ast
import pathlib
import sys
import types
import typing

SOURCE = pathlib.Path(__file__).with_name("programs.py")
BLOCKING = {"Context": "ContextSync", "Middleware": "MiddlewareSync", "send": "send_sync"}
"""Names of the SDK that differ."""


class _Blocking(ast.NodeTransformer):
    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> typing.Any:
        self.generic_visit(node)
        fields = {name: getattr(node, name) for name in node._fields}
        return ast.copy_location(ast.FunctionDef(**fields), node)

    def visit_Await(self, node: ast.Await) -> typing.Any:
        self.generic_visit(node)
        return node.value

    def visit_Name(self, node: ast.Name) -> typing.Any:
        # `asyncio.sleep` is all that the programs use of it.
        return ast.copy_location(ast.Name("time", node.ctx), node) if node.id == "asyncio" else node

    def visit_Attribute(self, node: ast.Attribute) -> typing.Any:
        self.generic_visit(node)
        node.attr = BLOCKING.get(node.attr, node.attr)
        return node


def load(*, blocking: bool) -> types.ModuleType:
    """The programs, as coroutines or as plain functions."""
    tree: ast.Module = ast.parse(SOURCE.read_text(), str(SOURCE))
    if blocking:
        tree = ast.fix_missing_locations(_Blocking().visit(tree))
    module = sys.modules["programs"] = types.ModuleType("programs")
    module.__file__ = str(SOURCE)
    exec(compile(tree, str(SOURCE), "exec"), module.__dict__)
    return module
