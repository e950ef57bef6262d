"""The children's lock: a file that every child of a server shares, so that a new server finds out about children of an old one.

Children die with their server by themselves. Where one does not (stuck in the kernel, say), two generations could run the same steps:
a new server therefore waits until nobody holds the lock, and ends whoever holds it too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

from stepwell.errors import UsageError

WAIT_S = 10.0
"""How long children of an earlier server have to end by themselves."""
KILLED_WAIT_S = 5.0
"""How long the kernel has to end those that were killed."""
LOOK_S = 0.05


async def await_no_children(path: Path, say: Callable[[str], None], wait_s: float = WAIT_S) -> None:
    """Return when no child of an earlier server is alive; those that are after `wait_s` are named and killed, groups and all.

    Raises `UsageError` where even that does not help.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if await _locked(fd, wait_s):
            return
        holders = holders_of(path)
        names = ", ".join(map(str, holders)) or "unknown to the system"
        say(f"children of an earlier server are still alive after {wait_s:g} s (process {names}): ending them")
        for pid in holders:
            kill_group(pid)
        if not await _locked(fd, KILLED_WAIT_S):
            raise UsageError(
                f"processes of an earlier server hold {path} and could not be ended (process {names}): end them, and start again"
            )
    finally:
        os.close(fd)


async def _locked(fd: int, wait_s: float) -> bool:
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if loop.time() >= until:
                return False
        await asyncio.sleep(LOOK_S)


def holders_of(path: Path) -> list[int]:
    """The processes that hold a lock on the file, where the system tells (Linux), this one excepted."""
    try:
        there = os.stat(path)
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    wanted = (os.major(there.st_dev), os.minor(there.st_dev), there.st_ino)
    found = set()
    for line in lines:
        # 3: FLOCK  ADVISORY  READ 4711 08:01:131 0 EOF; a process that waits has "->" behind the number.
        fields = line.split()
        if len(fields) < 6 or fields[1] == "->":
            continue
        with contextlib.suppress(ValueError):
            major, minor, inode = fields[5].split(":")
            if (int(major, 16), int(minor, 16), int(inode)) == wanted:
                found.add(int(fields[4]))
    return sorted(found - {os.getpid(), -1, 0})


def kill_group(pid: int) -> None:
    """Kill a process and its process group, if it leads one; never one's own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group == pid and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        elif pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
