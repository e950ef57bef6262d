"""A cache that is rebuilt when somebody has asked for it."""

import json
from urllib.parse import urlsplit

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.method == "POST" and urlsplit(request.url).path == "/refresh":
            # A flag that nobody picks up within the hour is worth nothing any more.
            await self.env.STATE.put("refresh", "wanted", expirationTtl=3600)
            return Response("the cache will be rebuilt", status=202)
        cache = await self.env.STATE.getWithMetadata("cache", "json")
        return Response.json({"cache": cache.value, "about": cache.metadata})

    async def scheduled(self, controller, env, ctx):
        if await self.env.STATE.get("refresh") is None:
            return
        squares = {str(n): n * n for n in range(100)}
        await self.env.STATE.put("cache", json.dumps(squares), metadata={"built": controller.scheduledTime})
        await self.env.STATE.delete("refresh")
