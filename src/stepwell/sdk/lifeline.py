"""What ties a child process to its server: it dies with it, holds the children's lock while it lives, and keeps forks of user code out.

Three ways to notice that the server is gone, since each has a gap: the kernel's signal (Linux; it is bound to the thread that started
the child), a thread at the socket's end (needs the interpreter), the event loop (needs to be free).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import threading

from stepwell.errors import UsageError
from stepwell.sdk.threads import forget_threads

_PR_SET_PDEATHSIG = 1
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends; end at once where the server is gone already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def watch_socket(fd: int) -> None:
    """A thread that ends the process when the other end of the socket is closed."""

    def watch() -> None:
        poll = select.poll()
        poll.register(fd, _POLLRDHUP)
        while True:
            for _, happened in poll.poll():
                if happened & (_POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    os._exit(1)

    threading.Thread(target=watch, name="stepwell-lifeline", daemon=True).start()


def hold_lock(path: str) -> int:
    """Share the children's lock, and give its file descriptor. Raises `UsageError` while a server is waiting for children to end."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise UsageError(f"another server is being started: it holds {path}") from None
    return fd


def keep_from_forks(*fds: int) -> None:
    """Close these in whatever user code forks, so that it can neither speak for this process nor hold its lock."""

    def close() -> None:
        forget_threads()
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    os.register_at_fork(after_in_child=close)
