"""How large a document may be: its text, how deep it is nested, and how many fields it selects, fragments spread out."""

from __future__ import annotations

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    OperationDefinitionNode,
    SelectionSetNode,
)

TEXT_BYTES_MAX = 256 * 1024
DEPTH_MAX = 24
"""Twice what a trace with its children's children takes; introspection takes 13."""
FIELDS_MAX = 2000
ROOTS_MAX = 50
"""Fields at the root of an operation, each of which is a query of its own."""


def check_size(document: DocumentNode) -> None:
    """Raise `GraphQLError` for a document that asks too much."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    measured: dict[str, tuple[int, int]] = {}
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            depth, fields = _measure(node.selection_set, fragments, measured, frozenset())
            if depth > DEPTH_MAX:
                raise GraphQLError(f"the operation is nested {depth} deep; at most {DEPTH_MAX} is answered")
            if fields > FIELDS_MAX:
                raise GraphQLError(f"the operation selects {fields} fields; at most {FIELDS_MAX} are answered")
            if len(node.selection_set.selections) > ROOTS_MAX:
                raise GraphQLError(f"the operation asks {len(node.selection_set.selections)} queries at once; at most {ROOTS_MAX}")


def _measure(
    selection: SelectionSetNode | None,
    fragments: dict[str, FragmentDefinitionNode],
    measured: dict[str, tuple[int, int]],
    within: frozenset[str],
) -> tuple[int, int]:
    """(depth, fields) below a selection. A fragment is measured once; one that contains itself is refused."""
    depth = fields = 0
    for node in selection.selections if selection is not None else ():
        if isinstance(node, FieldNode):
            below, more = _measure(node.selection_set, fragments, measured, within)
            depth, fields = max(depth, below + 1), fields + more + 1
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name in within:
                raise GraphQLError(f"the fragment {name} contains itself")
            if name not in measured:
                fragment = fragments.get(name)
                inside = None if fragment is None else fragment.selection_set
                measured[name] = _measure(inside, fragments, measured, within | {name})
            below, more = measured[name]
            depth, fields = max(depth, below), fields + more
        else:
            below, more = _measure(getattr(node, "selection_set", None), fragments, measured, within)
            depth, fields = max(depth, below), fields + more
    return depth, fields
