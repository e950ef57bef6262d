"""What holds for all tests, and how two processes share them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

# A limit in wall time says more of what else the machine does than of the code.
settings.register_profile("stepwell", deadline=None)
settings.load_profile("stepwell")

ALONE = frozenset(("unit", "property", "simulation", "conformance", "typing", "test_docs.py"))
"""Places whose tests share nothing: any process may take each of them. Elsewhere a process takes whole files, or all cases of a rig."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have what shares servers run in one process, so that these are started once."""
    from xdist.scheduler import LoadScopeScheduling

    class Shares(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Shares(config, log)


def scope_of(nodeid: str) -> str:
    """What a test shares with others: its rig's server, its file's; or nothing."""
    from tests.compat.rigs import RIGS

    file, _, rest = nodeid.partition("::")
    if file.split("/")[1] in ALONE:
        return nodeid
    parameters = rest.partition("[")[2].removesuffix("]")
    rigs = [rig for rig in RIGS if parameters == rig or parameters.startswith(f"{rig}-") or parameters.endswith(f"-{rig}")]
    return f"rig {max(rigs, key=len)}" if rigs and file.startswith("tests/compat/") else file
