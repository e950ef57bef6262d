"""Apps with the `inngest` package from PyPI: its newest version served in five ways, one a year older, and both in cloud mode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.compat.capabilities import CONNECT_LACKS, FEW, NO_STREAMING, PYTHON_LACKS, PYTHON_OLD_LACKS, SERVED
from tests.compat.rig import Spec

APPS = Path(__file__).parent / "apps" / "python"
ROOT = Path(__file__).parent.parent.parent
NEW, OLD = "0.5.19", "0.5.0"
"""The newest version, and the one that came a year before it (2025-06-23)."""
OLD_PACKAGES = ROOT / ".venv" / f"inngest-{OLD}"


def uvicorn(app: str) -> Callable[[int], Sequence[str]]:
    """Serve an ASGI app."""
    return lambda port: [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]


def old(env: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with the older package in front."""
    return {**env, "PYTHONPATH": str(OLD_PACKAGES)}


SPECS = (
    Spec(
        name="py-fastapi",
        column=f"PyPI {NEW}, FastAPI",
        sdk=f"inngest-py:v{NEW}",
        command=uvicorn("fastapi_app:app"),
        cwd=APPS,
        lacks=PYTHON_LACKS,
        share="all",
    ),
    Spec(
        name="py-flask",
        column=f"PyPI {NEW}, Flask",
        sdk=f"inngest-py:v{NEW}",
        command=lambda port: [sys.executable, "-m", "flask", "--app", "flask_app", "run", "--port", str(port)],
        cwd=APPS,
        lacks={**PYTHON_LACKS, **NO_STREAMING},
        share=SERVED,
    ),
    Spec(
        name="py-django",
        column=f"PyPI {NEW}, Django",
        sdk=f"inngest-py:v{NEW}",
        command=lambda port: [sys.executable, "django_app.py", "runserver", "--noreload", str(port)],
        cwd=APPS,
        lacks={**PYTHON_LACKS, **NO_STREAMING},
        share=SERVED,
    ),
    Spec(
        name="py-django-async",
        column=f"PyPI {NEW}, Django (async)",
        sdk=f"inngest-py:v{NEW}",
        command=uvicorn("django_app:asgi"),
        cwd=APPS,
        env={"FUNCTIONS": "async"},
        lacks={**PYTHON_LACKS, **NO_STREAMING},
    ),
    Spec(
        name="py-connect",
        column=f"PyPI {NEW}, Connect",
        sdk=f"inngest-py:v{NEW}",
        command=lambda port: [sys.executable, "connect_app.py"],
        cwd=APPS,
        lacks={**PYTHON_LACKS, **CONNECT_LACKS},
        transport="connect",
    ),
    Spec(
        name="py-old",
        column=f"PyPI {OLD}, FastAPI",
        sdk=f"inngest-py:v{OLD}",
        command=uvicorn("fastapi_app:app"),
        cwd=APPS,
        env=old({}),
        lacks=PYTHON_OLD_LACKS,
    ),
    Spec(
        name="py-cloud",
        column=f"PyPI {NEW}, FastAPI, signed",
        sdk=f"inngest-py:v{NEW}",
        command=uvicorn("fastapi_app:app"),
        cwd=APPS,
        lacks=PYTHON_LACKS,
        share=FEW,
        kind="cloud",
    ),
    Spec(
        name="py-old-cloud",
        column=f"PyPI {OLD}, FastAPI, signed",
        sdk=f"inngest-py:v{OLD}",
        command=uvicorn("fastapi_app:app"),
        cwd=APPS,
        env=old({}),
        lacks=PYTHON_OLD_LACKS,
        kind="cloud",
    ),
)
