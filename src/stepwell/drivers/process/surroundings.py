"""What child processes are started with, beside their app."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

MAIN = "stepwell.sdk.child"
"""The module that a child runs."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`environment` is laid over the server's own; `niceness` is added to its; `sockets` are descriptors that they inherit."""

    environment: dict[str, str] = {}
    niceness: int = 0
    sockets: tuple[int, ...] = ()

    def started(self, arguments: list[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        """A child: in a group of its own, so that a terminal's Ctrl-C reaches the server alone, which then drains it."""
        command = [sys.executable, "-m", MAIN, *arguments]
        if self.niceness:
            command = ["nice", "-n", str(self.niceness), *command]
        environment = {**os.environ, **self.environment} if self.environment else None
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(*fds, *self.sockets), process_group=0, env=environment)


PLAIN = Surroundings()
"""The server's own."""
