"""What child processes are started with, beside their app."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

TRIES, PAUSE_S = 20, 0.15
MAIN = "stepwell.sdk.child"
"""The module that a child runs."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """`environment` is laid over the server's own; `niceness` is added to its; `sockets` are descriptors that they inherit."""

    environment: dict[str, str] = {}
    niceness: int = 0
    sockets: tuple[int, ...] = ()

    def started(self, arguments: list[str], fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        """A child: in a group of its own, so that a terminal's Ctrl-C reaches the server alone, which then drains it.

        One that is nicer has a session of its own as well: where Linux groups processes by session, niceness counts among those of one
        session only, and the session's own is what the rest of the machine goes by (`be_nice`).
        """
        command = [sys.executable, "-m", MAIN, *arguments]
        if self.niceness:
            command = ["nice", "-n", str(self.niceness), *command]
        environment = {**os.environ, **self.environment} if self.environment else None
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(*fds, *self.sockets),
            process_group=None if self.niceness else 0,
            start_new_session=self.niceness > 0,
            env=environment,
        )

    def be_nice(self, pid: int) -> None:
        """Give a child's session its niceness too, where there is such a thing. It takes a moment: not for an event loop's thread."""
        if not self.niceness:
            return
        place = Path(f"/proc/{pid}/autogroup")
        for _ in range(TRIES):
            try:
                place.write_text(str(self.niceness))
            except BlockingIOError:
                # The kernel lets users change it ten times a second.
                time.sleep(PAUSE_S)
            except OSError:
                return
            else:
                return


PLAIN = Surroundings()
"""The server's own."""
