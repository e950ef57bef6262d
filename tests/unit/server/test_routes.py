"""The reference page of the HTTP API and the server have the same routes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stepwell.runtime.node import Node
from stepwell.server.app import Server, is_of_page
from stepwell.server.auth import Keys
from stepwell.server.connect_api import ConnectApi
from stepwell.store.memory import MemoryStore

PAGE = Path(__file__).parents[3] / "docs/reference/http-api.md"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def plain(path: str) -> str:
    """A path whatever its parameters are called."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def served() -> set[tuple[str, str]]:
    """(method, path) of every route of a dev server with a gateway, and of its bare ones."""
    node = Node(MemoryStore())
    server = Server(node, Keys(), "dev")
    gateway: Any = None
    routes: list[Any] = [*server.routes, *ConnectApi(node, gateway).routes(lambda handler: handler)]
    found = {("POST", "/e/{}")}
    for route in routes:
        methods = getattr(route, "methods", None)
        if methods is None and not hasattr(route, "app"):
            continue
        if route.path != "/ui":
            found |= {(method, plain(route.path)) for method in methods or ("GET",) if method in METHODS}
    return found


def documented() -> set[tuple[str, str]]:
    """(method, path) of every request that the page names in a table."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    requests = [found for row in rows for found in re.findall(r"`(" + "|".join(METHODS) + r") (/[^`?\[ ]*)", row.split(" | ")[0])]
    return {(method, plain(path)) for method, path in requests}


def test_every_route_is_documented_and_every_documented_one_is_there() -> None:
    """Both ways; `/api/v2` is `/v2` under another name."""
    routes = served()
    again = {(method, path.removeprefix("/api")) for method, path in routes if path.startswith("/api/v2/")}
    assert again == {(method, path) for method, path in routes if path.startswith("/v2/")}
    routes = {(method, path) for method, path in routes if not path.startswith("/api/v2/")}
    assert routes - documented() == set()
    assert documented() - routes == set()


def test_what_sdks_call_is_not_the_pages_own() -> None:
    """`/api/v2` is called from anywhere, as `/v2` is; the rest of `/api` from the page alone."""
    assert not is_of_page("/api/v2/runs") and is_of_page("/api/runs") and is_of_page("/")
