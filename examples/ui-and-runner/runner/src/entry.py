"""The runner: it renders reports, a batch at a time."""

import json

from workers import WorkerEntrypoint


class Busy(Exception):
    """The renderer takes nothing now."""


def render(job, attempt):
    """Heavy work: a sum over generated rows. `busy` makes the first so many attempts fail, `broken` all."""
    if job.get("broken") or attempt <= job.get("busy", 0):
        raise Busy(f"the renderer is busy (attempt {attempt})")
    total = 0
    for row in range(job["rows"]):
        total = (total * 31 + row) % 1_000_003
    return {"rows": job["rows"], "checksum": total}


class Default(WorkerEntrypoint):
    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            job = message.body
            try:
                result = render(job, message.attempts)
            except Busy as error:
                print(f"report {job['report']}: {error}")
                message.retry(delaySeconds=1)
                continue
            told = {"status": "done", "customer": job["customer"], "attempts": message.attempts, **result}
            await self.env.RESULTS.put(job["report"], json.dumps(told))
            message.ack()
