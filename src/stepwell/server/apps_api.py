"""Apps as people see and change them: which are known, how their last sync went, one more, one less."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepwell.engine.inputs import AppRemoved, Removed
from stepwell.engine.model import AppRow
from stepwell.errors import NotFound, ProtocolError
from stepwell.runtime.node import Node
from stepwell.server.discovery import Contact, Discovery
from stepwell.server.http import Guard, json_response
from stepwell.server.run_api import fields, text_of


class AppsApi:
    """The routes over a node. `discovery` syncs apps over HTTP; without one none can be added."""

    def __init__(self, node: Node, discovery: Discovery | None) -> None:
        self._node, self._discovery = node, discovery

    def routes(self, signed: Guard, admin: Guard) -> list[BaseRoute]:
        """All of them, behind the signing key or the admin token."""
        return [
            Route("/fn/remove", signed(self.remove_url), methods=["DELETE"]),
            Route("/api/apps", admin(self.apps)),
            Route("/api/apps", admin(self.add), methods=["POST"]),
            Route("/api/apps/{name:path}/sync", admin(self.sync), methods=["POST"]),
            Route("/api/apps/{name:path}", admin(self.remove), methods=["DELETE"]),
        ]

    async def apps(self, request: Request) -> Response:
        """The apps that are known, and the URLs that could not be synced."""
        contacts = dict(self._discovery.contacts) if self._discovery is not None else {}
        apps = [app for app in self._node.registry.apps.values() if not app.archived]
        shown = [self._shown(app, contacts.pop(app.url, None)) for app in sorted(apps, key=lambda app: app.name)]
        waiting = [
            {"url": contact.url, "error": contact.error, "error_ms": contact.error_ms}
            for contact in contacts.values()
            if contact.error is not None
        ]
        return json_response({"apps": shown, "not_synced": waiting})

    def _shown(self, app: AppRow, contact: Contact | None) -> dict[str, Any]:
        functions = [function.id for function in self._node.registry.of_app(app.name) if not function.row.archived]
        return {
            "name": app.name,
            "id": app.id,
            "url": app.url,
            "driver": app.driver,
            "sdk": app.sdk,
            "framework": app.framework,
            "functions": len(functions),
            "changed_ms": app.synced_ms,
            "synced_ms": max(app.synced_ms, contact.synced_ms or 0) if contact is not None else app.synced_ms,
            "error": None if contact is None else contact.error,
            "error_ms": None if contact is None else contact.error_ms,
        }

    async def add(self, request: Request) -> Response:
        """Sync the app of a URL."""
        url = text_of(await fields(request), "url")
        await self._syncs().add(url)
        return json_response({"ok": True, "url": url})

    async def sync(self, request: Request) -> Response:
        """Sync an app once more."""
        app = self._app(request.path_params["name"])
        if app.driver != "http" or not app.url:
            raise ProtocolError(f"app {app.name!r} is not served over HTTP: it registers itself when it starts")
        await self._syncs().sync(app.url)
        return json_response({"ok": True, "url": app.url})

    async def remove(self, request: Request) -> Response:
        """Know an app no longer. What runs goes on."""
        return json_response({"ok": True, "functions": (await self._removed(self._app(request.path_params["name"]))).functions})

    async def remove_url(self, request: Request) -> Response:
        """The same, by its URL (§1.2)."""
        url = request.query_params.get("url", "")
        apps = [app for app in self._node.registry.apps.values() if url and app.url == url and not app.archived]
        if not apps:
            raise NotFound(f"there is no app at {url!r}")
        return json_response({"ok": True, "functions": sum([(await self._removed(app)).functions for app in apps])})

    async def _removed(self, app: AppRow) -> Removed:
        async with self._discovery.removing(app.url) if self._discovery is not None else nullcontext():
            removed: Removed = await self._node.submit(AppRemoved(app.name))
        return removed

    def _app(self, name: str) -> AppRow:
        app = self._node.registry.apps.get(name)
        if app is None or app.archived:
            raise NotFound(f"there is no app {name!r}")
        return app

    def _syncs(self) -> Discovery:
        if self._discovery is None:
            raise ProtocolError("this server syncs no apps by itself: have the app register itself", 501)
        return self._discovery
