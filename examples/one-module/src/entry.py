"""Orders: taken by fetch, packed by queue, counted by scheduled."""

import json
from urllib.parse import urlsplit

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = urlsplit(request.url).path
        if request.method == "POST" and path == "/orders":
            order = json.loads(await request.text())
            await self.env.ORDERS.send(order)
            return Response.json({"taken": order["order"]}, status=202)
        if path == "/packed":
            count = await self.env.PACKED.get("count", "json")
            return Response.json(count or {"orders": 0, "counted": None})
        return Response("POST /orders, GET /packed", status=404)

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            await self.env.PACKED.put(f"order/{message.body['order']}", message.id)

    async def scheduled(self, controller, env, ctx):
        orders, cursor = 0, None
        while True:
            page = await self.env.PACKED.list(prefix="order/", cursor=cursor)
            orders += len(page["keys"])
            if page.list_complete:
                break
            cursor = page.cursor
        await self.env.PACKED.put("count", json.dumps({"orders": orders, "counted": controller.scheduledTime}))
