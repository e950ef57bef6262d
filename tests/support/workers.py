"""`stepwell workers dev` for tests: projects written to a folder or copied there, started on free ports."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.processes import Process, until

READY = re.compile(r"^Stepwell is ready: (http://\S+)$", re.MULTILINE)
PAGE = re.compile(r"^Page: (http://\S+)$", re.MULTILINE)


class WorkersDev(Process):
    """The command in a folder. `url` is the first project's address, `page` the server's."""

    def __init__(self, directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        ports = [] if "--port" in arguments else ["--port", "0"]
        log = directory / "workers.log"
        said = log.stat().st_size if log.exists() else 0
        super().__init__([sys.executable, "-m", "stepwell", "workers", "dev", *ports, *arguments], log, env=env, cwd=directory)

        def ready() -> re.Match[str] | None:
            new = log.read_bytes()[said:].decode(errors="replace")
            assert self.popen.poll() is None, f"it ended: {new}"
            return READY.search(new)

        try:
            self.url = until(ready, "it says that it is ready", 60)[1]
        except BaseException:
            self.kill()
            raise
        new = log.read_bytes()[said:].decode(errors="replace")
        found = PAGE.search(new)
        assert found is not None
        self.page = found[1]
        self.urls: dict[str, str] = dict(re.findall(r"^([a-z0-9_-]+): (http://\S+)$", new, re.MULTILINE))

    def get(self, path: str, *, project: str | None = None) -> Any:
        """What a GET is answered with: JSON where it is, else text."""
        return asked(self._address(project) + path)[1]

    def post(self, path: str, body: Any = None, *, project: str | None = None) -> Any:
        """The same of a POST; a body that is no bytes is sent as JSON."""
        return asked(self._address(project) + path, b"" if body is None else body)[1]

    def _address(self, project: str | None) -> str:
        return self.url if project is None else self.urls[project]

    def says(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until it has printed a text."""
        until(lambda: text in self.text(), f"it says {text!r}: {self.text()[-2000:]}", timeout_s)


def asked(url: str, body: Any = None, *, method: str | None = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """The status and body of any answer."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, kind, raw = response.status, response.headers.get("content-type", ""), response.read()
    except urllib.error.HTTPError as error:
        status, kind, raw = error.code, error.headers.get("content-type", ""), error.read()
    return status, json.loads(raw) if "json" in kind else raw.decode()


def project(folder: Path, wrangler: str, source: str, *, name: str = "wrangler.toml") -> Path:
    """Write a project."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(wrangler)
    (folder / "src" / "entry.py").write_text(source)
    return folder
