"""A project written from Cloudflare's public documentation runs unchanged: KV, D1, a queue, an object with an alarm, a cron, a workflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.support.processes import running, until
from tests.support.workers import WorkersDev, asked

PROJECT = Path(__file__).with_name("workers_project")


def test_a_shop(tmp_path: Path) -> None:
    """From cart to shipping: an object, its alarm, a queue, rows, a workflow that waits, a report; killed in the midst, it goes on."""
    shop = tmp_path / "shop"
    shutil.copytree(PROJECT, shop)
    with running(WorkersDev(shop)) as server:
        assert server.post("/cart?customer=ann", {"name": "lamp", "cents": 4500})["items"] == [{"name": "lamp", "cents": 4500}]
        assert len(server.post("/cart?customer=ann", {"name": "desk", "cents": 19900})["items"]) == 2
        until(lambda: server.get("/cart?customer=ann")["reminded"] == {"items": 2, "retries": 0}, "the alarm has gone off")
        assert asked(f"{server.url}/checkout?customer=ann", b"") == (202, {"ordered": 2})

        def statuses() -> list[Any]:
            return [order["Status"] for order in server.get("/orders?customer=ann")["orders"]]

        until(lambda: statuses() == ["reserved", "reserved"], f"both orders are reserved: {server.text()}")
        assert server.get("/cart?customer=ann")["items"] == []
        # Nothing is stopped first: all of it, with what runs in it, is gone at once.
        server.kill()
    with running(WorkersDev(shop)) as server:
        assert asked(f"{server.url}/packed?order=1", b"") == (204, "")
        until(lambda: statuses() == ["shipped by bob", "reserved"], f"the first order is shipped: {server.text()}")
        assert asked(f"{server.url}/cdn-cgi/handler/scheduled?cron=0+6+*+*+MON-FRI") == (200, "ok")
        assert server.get("/report") == {"report": {"orders": 2, "cents": 24400}, "about": {"cron": "0 6 * * MON-FRI"}}
        assert server.get("/orders?customer=ann")["currency"] == "EUR"
