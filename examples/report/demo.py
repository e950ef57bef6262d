"""The report job, killed in mid-run: `make demo`. Exit code 0 only if everything it promises was seen to happen."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from surroundings import FAILURES, DataServer, MailServer  # noqa: E402 - found beside this file, wherever it is started from

T = TypeVar("T")
TIMEOUT_S = 60.0


class Failed(Exception):
    """Something that was to happen did not."""


def until(condition: Callable[[], T], what: str) -> T:
    """The condition's value as soon as it is true. Raises `Failed` naming what did not come about."""
    end = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"not within {TIMEOUT_S:g} s: {what}")
        time.sleep(0.02)
    return value


def check(holds: bool, what: str) -> None:
    """Say that it holds; raise `Failed` where it does not."""
    if not holds:
        raise Failed(what)
    print(f"  ✓ {what}")


class Server:
    """`stepwell dev` with the report app, as a process of its own."""

    def __init__(self, work: Path, mail_port: int) -> None:
        self.log = work / "server.log"
        said = self.log.stat().st_size if self.log.exists() else 0
        self.args = [sys.executable, "-m", "stepwell", "dev", str(HERE / "app.py"), "--port", "0", "--no-discovery"]
        self.args += ["--retry-interval", "1", "--db", str(work / "demo.db")]
        environ = {**os.environ, "REPORT_WORK": str(work), "REPORT_SMTP_PORT": str(mail_port)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.args, stdout=log, stderr=subprocess.STDOUT, env=environ, start_new_session=True)

        def ready() -> re.Match[str] | None:
            text = self.log.read_bytes()[said:].decode(errors="replace")
            if self.process.poll() is not None:
                raise Failed(f"the server ended:\n{text}")
            return re.search(r"Stepwell is ready: (http://\S+)", text)

        self.url = until(ready, "the server is ready")[1]

    def ask(self, path: str, body: Any = None) -> Any:
        """A JSON request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.loads(response.read())

    def end(self, number: int) -> None:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)


def main() -> int:
    """Run it; 0 if all was seen."""
    work = Path(os.environ.get("REPORT_WORK") or Path.cwd() / ".stepwell" / "demo").resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data, mail = DataServer(), MailServer()
    servers: list[Server] = []
    try:
        run(work, data, mail, servers)
    except Failed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    finally:
        for server in servers:
            server.end(signal.SIGTERM)
        mail.stop()
        data.shutdown()
    return 0


def run(work: Path, data: DataServer, mail: MailServer, servers: list[Server]) -> None:
    """The story."""
    print("Starting a server with the report app (--retry-interval 1: a second between retries, in place of the backoff table).")
    server = Server(work, mail.port)
    servers.append(server)
    until(lambda: server.ask("/api/functions")["functions"], "the app is known")
    print("Sending app/report.created. The data server refuses at first, and the renderer fails twice, on purpose.")
    sent = server.ask("/api/events", {"name": "app/report.created", "data": {"url": data.url, "email": "you@example.com"}})
    run_id = until(lambda: server.ask(f"/api/events/{sent['ids'][0]}/runs")["runs"], "the event has started a run")[0]["id"]

    def trace() -> Any:
        return servers[-1].ask(f"/api/runs/{run_id}")

    def failing() -> bool:
        steps = {step["name"]: step for step in trace()["steps"]}
        return "generate-report" in steps and len(steps["generate-report"]["attempts"]) >= 1

    until(failing, "generate-report has failed once")
    print(f"fetch-data is stored and generate-report has failed once: killing the server (SIGKILL, process {server.process.pid}).")
    server.end(signal.SIGKILL)
    print("Starting it again on the same file.")
    servers.append(Server(work, mail.port))
    until(lambda: trace()["run"]["ended_ms"], "the run ends")

    told = trace()
    calls = (work / "calls").read_text().splitlines()
    steps = {step["name"]: step for step in told["steps"]}
    pdf = work / "report.pdf"
    print("\nWhat was to happen:")
    check(told["run"]["status"] == "completed", "the run completed")
    check(calls.count("fetch-data done") == 1, "fetch-data, stored before the kill, was not called again")
    check(data.requests == FAILURES + 1, f"its {FAILURES} refused downloads were tried again")
    check(len(steps["generate-report"]["attempts"]) == 2, "generate-report failed twice and was tried again")
    check(calls.count("generate-report done") == 1, "the report was rendered once")
    check(pdf.read_bytes().startswith(b"%PDF") and pdf.stat().st_size > 4000, "it is a PDF")
    check(len(mail.mails) == 1, "one mail arrived")
    attached = [part for part in mail.mails[0].walk() if part.get_content_type() == "application/pdf"]
    check(len(attached) == 1 and attached[0].get_payload(decode=True) == pdf.read_bytes(), "with the PDF attached")

    print("\nThe trace:")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "stepwell", "runs", "show", run_id, "--url", servers[-1].url], check=True)
    print(f"\nThe report: {pdf}")
    print(f"The page was at {servers[-1].url}/#/runs/{run_id}")
    print(f"To see it again: stepwell dev --db {work / 'demo.db'}, then http://127.0.0.1:8288/#/runs/{run_id}")


if __name__ == "__main__":
    sys.exit(main())
