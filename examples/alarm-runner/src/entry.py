"""A tenant's jobs: put into its storage, done by its alarm."""

import json
import time
from urllib.parse import urlsplit

from workers import DurableObject, Response, WorkerEntrypoint


class Tenant(DurableObject):
    async def enqueue(self, job):
        number = (await self.ctx.storage.get("last") or 0) + 1
        self.ctx.storage.put("last", number)
        self.ctx.storage.put(f"job/{number:08}", job)
        if await self.ctx.storage.getAlarm() is None:
            await self.ctx.storage.setAlarm(int(time.time() * 1000))
        return number

    async def status(self):
        waiting = await self.ctx.storage.list(prefix="job/")
        done = await self.ctx.storage.list(prefix="done/")
        return {"waiting": len(waiting), "done": [json.loads(text) for text in dict(done).values()]}

    async def alarm(self, alarm_info=None):
        jobs = dict(await self.ctx.storage.list(prefix="job/", limit=1))
        for key, job in jobs.items():
            result = self.work(job, alarm_info)
            # One unit: the job is done, its result is there and the next alarm is set, or none of it.
            self.ctx.storage.delete(key)
            self.ctx.storage.put(f"done/{key.removeprefix('job/')}", json.dumps(result))
            self.ctx.storage.setAlarm(int(time.time() * 1000))

    def work(self, job, alarm_info):
        tried = alarm_info.retryCount if alarm_info is not None else 0
        if tried < job.get("failures", 0):
            raise RuntimeError(f"{job['job']} failed (try {tried})")
        return {"job": job["job"], "result": job.get("n", 0) ** 2, "retries": tried}


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = urlsplit(request.url).path.strip("/")
        if not name:
            return Response("POST or GET /TENANT", status=404)
        tenant = self.env.TENANTS.getByName(name)
        if request.method == "POST":
            number = await tenant.enqueue(json.loads(await request.text()))
            return Response.json({"number": number}, status=202)
        return Response.json(await tenant.status())
