"""The examples of Workers do what their READMEs say, started by the READMEs' own lines."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import running, until
from tests.support.workers import WorkersDev, asked

ROOT = Path(__file__).parents[2]
CURL = {"-d": "data", "-X": "method"}


def lines(example: str, command: str) -> list[list[str]]:
    """The lines of a README with a command, as words."""
    text = (ROOT / "examples" / example / "README.md").read_text()
    return [shlex.split(line) for line in re.findall(rf"^    ({command} .*)$", text, re.MULTILINE)]


@contextmanager
def started(example: str, folder: Path) -> Iterator[WorkersDev]:
    """The example, in a copy, by the line of its README; on free ports."""
    shutil.copytree(ROOT / "examples" / example, folder / "examples" / example, ignore=shutil.ignore_patterns(".stepwell"))
    ((_, workers, dev, *places),) = lines(example, "stepwell")
    assert [workers, dev] == ["workers", "dev"]
    with running(WorkersDev(folder, *places)) as server:
        yield server
        assert server.stop() == 0, server.text()


def curl(words: list[str], url: str, **changed: str) -> tuple[int, Any]:
    """Do a `curl` line at another address; `changed` are its words in capitals."""
    told: dict[str, str] = {}
    words = words[1:]
    while words:
        word = words.pop(0)
        told[CURL.get(word, "url")] = words.pop(0) if word in CURL else word
    address = told["url"].replace("http://127.0.0.1:8787", url)
    for name, value in changed.items():
        address = address.replace(name, value)
    data = told["data"].encode() if "data" in told else None
    return asked(address, data, method=told.get("method"), headers={"user-agent": "curl/8"})


def test_a_page_hands_over_and_a_runner_does_it(tmp_path: Path) -> None:
    """Two projects with a queue and a namespace between them: answered at once, done later, tried again where it is busy."""
    with started("ui-and-runner", tmp_path) as server:
        send, look = lines("ui-and-runner", "curl")
        status, taken = curl(send, server.url)
        assert status == 202 and taken["status"] == "waiting"
        done = until(lambda: (told := curl(look, server.url, ID=taken["report"])[1])["status"] == "done" and told, "the report is done")
        assert done["customer"] == "ann" and done["rows"] == 200_000 and done["attempts"] == 1
        busy = curl([*send[:2], '{"customer": "bob", "rows": 10, "busy": 1}', *send[3:]], server.url)[1]
        again = until(lambda: (told := server.get(f"/reports/{busy['report']}"))["status"] == "done" and told, "the busy one is done")
        assert again["attempts"] == 2
        assert "ann</a>: done" in server.get("/") and "bob</a>: done" in server.get("/")
        entry = tmp_path / "examples/ui-and-runner/runner/src/entry.py"
        entry.write_text(entry.read_text() + "\n")
        server.says("entry.py changed: runner runs anew")
        assert "ui runs anew" not in server.text()


def test_one_module_has_all_three_handlers(tmp_path: Path) -> None:
    """Taken by fetch, packed by queue, counted by scheduled."""
    with started("one-module", tmp_path) as server:
        order, tick, look = lines("one-module", "curl")
        assert curl(order, server.url) == (202, {"taken": "o-1"})

        def counted() -> Any:
            assert curl(tick, server.url) == (200, "ok"), server.text()
            return curl(look, server.url)[1] if curl(look, server.url)[1]["orders"] == 1 else None

        assert until(counted, "the order is packed and counted")["counted"] > 0


def test_a_flag_in_kv_is_picked_up_by_cron(tmp_path: Path) -> None:
    """No flag, no work; the flag goes when the work is done."""
    with started("kv-flag", tmp_path) as server:
        refresh, tick, look = lines("kv-flag", "curl")
        assert curl(tick, server.url) == (200, "ok") and curl(look, server.url)[1] == {"cache": None, "about": None}
        assert curl(refresh, server.url)[0] == 202 and curl(tick, server.url) == (200, "ok")
        built = curl(look, server.url)[1]
        assert built["cache"]["12"] == 144
        assert curl(tick, server.url) == (200, "ok") and curl(look, server.url)[1] == built


def test_a_table_of_jobs_is_worked_off_by_cron(tmp_path: Path) -> None:
    """The migration has made the table; a job that fails is due again later."""
    with started("d1-jobs", tmp_path) as server:
        add, tick, look = lines("d1-jobs", "curl")
        assert curl(add, server.url) == (202, {"id": 1})
        assert server.post("/jobs", {"kind": "invoice", "failures": 9}) == {"id": 2}
        assert curl(tick, server.url) == (200, "ok")
        second, first = curl(look, server.url)[1]
        assert first == {"id": 1, "kind": "invoice", "status": "done", "attempts": 1, "result": '{"total": 14.28}'}
        assert second["status"] == "pending" and "out of paper (attempt 1)" in second["result"]


def test_a_runner_of_jobs_driven_by_alarms(tmp_path: Path) -> None:
    """One tenant's jobs one after the other, each stored with its result; a job that fails is tried again."""
    with started("alarm-runner", tmp_path) as server:
        add, look = lines("alarm-runner", "curl")
        assert curl(add, server.url) == (202, {"number": 1})
        assert server.post("/acme", {"job": "flaky", "n": 4, "failures": 1}) == {"number": 2}
        assert server.post("/other", {"job": "draw", "n": 5}) == {"number": 1}
        told = until(lambda: (told := curl(look, server.url)[1])["waiting"] == 0 and told, "the jobs are done")
        assert told["done"] == [{"job": "resize", "result": 9, "retries": 0}, {"job": "flaky", "result": 16, "retries": 1}]
        assert until(lambda: server.get("/other")["done"], "the other's job is done") == [{"job": "draw", "result": 25, "retries": 0}]
