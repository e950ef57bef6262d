"""The page: it hands reports over and shows what has become of them."""

import json
import uuid
from html import escape
from urllib.parse import urlsplit

from workers import Response, WorkerEntrypoint

PAGE = """<!doctype html><title>Reports</title><h1>Reports</h1>
<form method="post" action="/reports"><input name="customer" placeholder="customer" required> <button>Make a report</button></form>
<ul>{items}</ul>"""


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = urlsplit(request.url).path
        if request.method == "POST" and path == "/reports":
            return await self.hand_over(request)
        if path.startswith("/reports/"):
            result = await self.env.RESULTS.get(path.removeprefix("/reports/"), "json")
            return Response.json({"error": "there is no such report"}, status=404) if result is None else Response.json(result)
        if path == "/":
            return Response(PAGE.format(items=await self.items()), headers={"content-type": "text/html; charset=utf-8"})
        return Response("not found", status=404)

    async def hand_over(self, request):
        try:
            wanted = await wanted_by(request)
        except ValueError as error:
            return Response.json({"error": f"the body is no JSON: {error}"}, status=400)
        if not isinstance(wanted, dict) or not isinstance(wanted.get("customer"), str):
            return Response.json({"error": "customer is missing: whose report is it?"}, status=400)
        report = uuid.uuid4().hex
        await self.env.RESULTS.put(report, json.dumps({"status": "waiting", "customer": wanted["customer"]}))
        await self.env.JOBS.send({"report": report, "rows": 100_000, **wanted})
        return Response.json({"report": report, "status": "waiting"}, status=202)

    async def items(self):
        keys = (await self.env.RESULTS.list(limit=50))["keys"]
        results = [(key.name, await self.env.RESULTS.get(key.name, "json")) for key in keys]
        return "".join(
            f'<li><a href="/reports/{name}">{escape(result["customer"])}</a>: {escape(result["status"])}</li>'
            for name, result in results
            if result is not None
        )


async def wanted_by(request):
    """What the page's form tells, or the JSON of a program."""
    if request.headers.get("content-type") == "application/x-www-form-urlencoded" and not is_curl(request):
        return {"customer": (await request.form_data()).get("customer")}
    return json.loads(await request.text())


def is_curl(request):
    """Whether the request is typed: curl calls all that it sends a form."""
    return request.headers.get("user-agent", "").startswith("curl")
