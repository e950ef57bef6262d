"""Jobs as rows: added by fetch, worked off by cron."""

import json
import time

from workers import Response, WorkerEntrypoint

ATTEMPTS_MAX = 5
AT_ONCE = 100


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.method == "POST":
            job = json.loads(await request.text())
            added = await (
                self.env.DB.prepare("INSERT INTO jobs (kind, payload, due_ms) VALUES (?, ?, ?) RETURNING id")
                .bind(job["kind"], json.dumps(job), now_ms())
                .first()
            )
            return Response.json({"id": added.id}, status=202)
        jobs = await self.env.DB.prepare("SELECT id, kind, status, attempts, result FROM jobs ORDER BY id DESC LIMIT 100").all()
        return Response.json([dict(row) for row in jobs.results])

    async def scheduled(self, controller, env, ctx):
        due = await (
            self.env.DB.prepare(
                "SELECT id, payload, attempts FROM jobs WHERE status = 'pending' AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"
            )
            .bind(now_ms(), AT_ONCE)
            .all()
        )
        for row in due.results:
            await self.work(row.id, json.loads(row.payload), row.attempts + 1)

    async def work(self, id, job, attempt):
        try:
            result = perform(job, attempt)
        except Exception as error:
            status = "failed" if attempt >= ATTEMPTS_MAX else "pending"
            # A second, two, four, eight: jobs that fail are not in the way of the others.
            due_ms = now_ms() + 1000 * 2 ** (attempt - 1)
            change = "UPDATE jobs SET status = ?, attempts = ?, due_ms = ?, result = ? WHERE id = ?"
            await self.env.DB.prepare(change).bind(status, attempt, due_ms, str(error), id).run()
        else:
            change = "UPDATE jobs SET status = 'done', attempts = ?, result = ? WHERE id = ?"
            await self.env.DB.prepare(change).bind(attempt, json.dumps(result), id).run()


def perform(job, attempt):
    """The work itself: it fails as often as the job says."""
    if attempt <= job.get("failures", 0):
        raise RuntimeError(f"the printer is out of paper (attempt {attempt})")
    return {"total": job.get("amount", 0) * 1.19}


def now_ms():
    return int(time.time() * 1000)
