"""The exception tree is the one drawn at the top of its file."""

from __future__ import annotations

import inspect
import re

from stepwell import errors


def test_the_tree_is_as_drawn() -> None:
    """Every exception stands under its parent, and none is left out."""
    drawn: dict[str, str] = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)(\w+)", line)
        if match is None or not (hasattr(errors, match[2]) or match[2] in ("Exception", "BaseException")):
            continue
        while branch and branch[-1][0] >= len(match[1]):
            branch.pop()
        drawn[match[2]] = branch[-1][1] if branch else ""
        branch.append((len(match[1]), match[2]))
    defined = {
        name: kind.__bases__[0].__name__ for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    }
    assert {name: parent for name, parent in drawn.items() if parent} == defined


def test_what_unwinds_a_run_is_no_exception() -> None:
    """So that `except Exception` in user code does not eat it."""
    assert not issubclass(errors.Unwind, Exception)
    assert issubclass(errors.Superseded, errors.Unwind) and issubclass(errors.Parked, errors.Unwind)


def test_errors_carry_what_their_readers_need() -> None:
    """Status and code for peers, names and stacks for users."""
    refused = errors.ProtocolError("no", 413, "too_large")
    assert (str(refused), refused.status, refused.code) == ("no", 413, "too_large")
    assert errors.ProtocolError("no").status == 400
    assert errors.CallError("no").code == "http_unreachable"
    assert errors.RetryAfterError("later", after="2m").after == "2m"
    failed = errors.InvokeError("E", "m", stack="s", step_id="charge")
    assert isinstance(failed, errors.StepError)
    assert (failed.name, failed.message, failed.stack, failed.step_id, str(failed)) == ("E", "m", "s", "charge", "m")
