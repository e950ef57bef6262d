import json
import time
from urllib.parse import parse_qs, urlparse

from fulfilment import Fulfilment as Fulfilment
from workers import DurableObject, Response, WorkerEntrypoint


class Cart(DurableObject):
    """A customer's cart. What is left in it for a while is reminded of, by the object's alarm."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER)")

    async def add(self, name, cents):
        self.ctx.storage.sql.exec("INSERT INTO items (name, cents) VALUES (?, ?)", name, cents)
        if await self.ctx.storage.getAlarm() is None:
            await self.ctx.storage.setAlarm(int(time.time() * 1000) + 300)
        return await self.contents()

    async def contents(self):
        rows = self.ctx.storage.sql.exec("SELECT name, cents FROM items ORDER BY id").toArray()
        return {"items": [{"name": row.name, "cents": row.cents} for row in rows], "reminded": await self.ctx.storage.get("reminded")}

    async def checkout(self):
        rows = self.ctx.storage.sql.exec("DELETE FROM items RETURNING name, cents").toArray()
        await self.ctx.storage.deleteAlarm()
        return [{"item": row.name, "cents": row.cents} for row in rows]

    async def alarm(self, alarm_info):
        count = self.ctx.storage.sql.exec("SELECT count(*) AS n FROM items").one().n
        await self.ctx.storage.put("reminded", {"items": count, "retries": alarm_info.retryCount})


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        url = urlparse(request.url)
        customer = parse_qs(url.query).get("customer", ["ann"])[0]
        cart = self.env.CARTS.getByName(customer)

        if url.path == "/cart" and request.method == "POST":
            item = json.loads(await request.text())
            return Response.json(await cart.add(item["name"], item["cents"]))
        if url.path == "/cart":
            return Response.json(await cart.contents())
        if url.path == "/checkout" and request.method == "POST":
            orders = [{"customer": customer, **line} for line in await cart.checkout()]
            await self.env.ORDERS.sendBatch([{"body": order} for order in orders])
            return Response.json({"ordered": len(orders)}, status=202)
        if url.path == "/orders":
            stmt = self.env.DB.prepare("SELECT OrderId, Item, Cents, Status FROM Orders WHERE Customer = ? ORDER BY OrderId")
            orders = (await stmt.bind(customer).all()).results
            return Response.json({"currency": self.env.CURRENCY, "orders": orders})
        if url.path == "/packed" and request.method == "POST":
            instance = await self.env.FULFILMENT.get(f"order-{parse_qs(url.query)['order'][0]}")
            await instance.sendEvent({"type": "packed", "payload": {"by": "bob"}})
            return Response(None, status=204)
        if url.path == "/report":
            cached = await self.env.CACHE.getWithMetadata("report", "json")
            return Response.json({"report": cached.value, "about": cached.metadata})
        return Response("Not found", status=404)

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            order = message.body
            try:
                added = (
                    await self.env.DB.prepare("INSERT INTO Orders (Customer, Item, Cents, Status) VALUES (?, ?, ?, ?) RETURNING OrderId")
                    .bind(order.customer, order.item, order.cents, "new")
                    .first()
                )
                await self.env.FULFILMENT.create({"id": f"order-{added.OrderId}", "params": {"order": added.OrderId}})
                message.ack()
            except Exception as e:
                print(f"order of {order.customer} failed: {e}")
                message.retry({"delaySeconds": 1})

    async def scheduled(self, controller, env, ctx):
        row = await self.env.DB.prepare("SELECT count(*) AS orders, sum(Cents) AS cents FROM Orders").first()
        await self.env.CACHE.put("report", json.dumps(row), metadata={"cron": controller.cron}, expirationTtl=3600)
