"""The report job: fetch a data set, render a PDF with a chart, mail it. Each step notes its calls in `WORK/calls`."""

from __future__ import annotations

import csv
import hashlib
import os
import smtplib
import urllib.request
from email.message import EmailMessage
from pathlib import Path

import stepwell

app = stepwell.App("reports")
work = Path(os.environ.get("REPORT_WORK", ".report"))
SMTP_PORT = int(os.environ.get("REPORT_SMTP_PORT", "2525"))
RENDER_FAILURES = 2


def note(what: str) -> int:
    """Write a call down; says how often it was made."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "calls").open("a") as file:
        file.write(what + "\n")
    return (work / "calls").read_text().splitlines().count(what)


def fetch_data(url: str) -> dict[str, str | int]:
    """Download the data set. Large values stay in files; the step returns where, how large, and a digest."""
    with urllib.request.urlopen(url, timeout=10) as response:
        body = response.read()
    path = work / "data.csv"
    path.write_bytes(body)
    note("fetch-data done")
    return {"path": str(path), "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def generate_report(data: dict[str, str | int]) -> dict[str, str | int]:
    """Render the PDF. It fails on its first two attempts, on purpose."""
    count = note("generate-report called")
    if count <= RENDER_FAILURES:
        raise RuntimeError(f"the renderer is not ready (try {count})")
    import matplotlib

    matplotlib.use("pdf")
    from matplotlib import pyplot

    with open(str(data["path"]), newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if _is_number(rows[0][name])][:2]
    figure, axes = pyplot.subplots(figsize=(8.3, 5.8))
    axes.scatter([float(row[names[0]]) for row in rows], [float(row[names[1]]) for row in rows], s=12, color="#0b6e74")
    axes.set(title=f"{len(rows)} rows: {names[1]} by {names[0]}", xlabel=names[0], ylabel=names[1])
    path = work / "report.pdf"
    figure.savefig(path)
    note("generate-report done")
    return {"path": str(path), "bytes": path.stat().st_size, "rows": len(rows)}


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()


def notify_user(to: str, report: dict[str, str | int]) -> str:
    """Mail the report."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "reports@example.com", to, f"Your report of {report['rows']} rows"
    message.set_content("The report is attached.")
    message.add_attachment(Path(str(report["path"])).read_bytes(), maintype="application", subtype="pdf", filename="report.pdf")
    with smtplib.SMTP("127.0.0.1", SMTP_PORT, timeout=10) as smtp:
        smtp.send_message(message)
    note("notify-user done")
    return f"mailed to {to}"


@app.function(trigger="app/report.created", retries=8)
async def make_report(ctx: stepwell.Context) -> dict[str, str | int]:
    data = await ctx.step.run("fetch-data", fetch_data, ctx.event.data["url"])
    report = await ctx.step.run("generate-report", generate_report, data)
    await ctx.step.run("notify-user", notify_user, ctx.event.data["email"], report)
    return report
