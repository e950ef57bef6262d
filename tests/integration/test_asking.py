"""What an app asks of the server's API by the engine in its own process: the routes that a server over HTTP has."""

from __future__ import annotations

import asyncio
import json

import stepwell

TIMEOUT_S = 30


def test_the_engine_in_this_process_answers_the_servers_routes() -> None:
    """Good answers and refusals with their status, queries and escaped paths; without a key, for nobody else is asked."""
    app = stepwell.App("asks")

    @app.function(trigger="asks/go")
    async def work(ctx: stepwell.Context) -> int:
        return 1

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S), app.engine(db=None):
            run = await app.start(work)
            assert await run.output() == 1
            status, body = await app.way.ask("GET", f"/v1/runs/{run.id}")
            assert status == 200 and json.loads(body)["data"]["output"] == 1
            status, body = await app.way.ask("GET", "/v2/runs?limit=1&status=COMPLETED")
            assert status == 200 and [one["id"] for one in json.loads(body)["data"]] == [run.id]
            status, body = await app.way.ask("POST", "/v1/signals", b'{"signal":"nobody"}', once=True)
            assert status == 404 and "nobody" in json.loads(body)["error"]
            status, body = await app.way.ask("GET", "/v1/runs/no%2Fsuch")
            assert status == 404 and json.loads(body)["status"] == 404
            assert (await app.way.ask("POST", "/v1/signals", b"{"))[0] == 400

    asyncio.run(main())
