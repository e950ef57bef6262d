"""The modules that Workers import: their names, and what is told of imports that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.errors import UsageError
from stepwell.workers.loading import load_main
from tests.unit.workers.conftest import Load

NAMES = (
    "Blob BlobEnding BlobValue Body Context DurableObject FetchKwargs FetchResponse File FormData FormDataValue Headers JSBody Request "
    "RequestInitCfProperties Response WorkerEntrypoint WorkflowEntrypoint env fetch handler import_from_javascript patch_env "
    "python_from_rpc python_to_rpc waitUntil wait_until"
)


def test_every_name_is_there(load: Load) -> None:
    """Those of the platform's package, and its modules."""
    module = load(
        f"from workers import {', '.join(NAMES.split())}\n"
        "import workers, asgi, workers.asgi, workers.wsgi\n"
        "from workers.workflows import NonRetryableError\n"
        "from workers import asgi as inner\n"
    )
    assert sorted(module.workers.__all__) == sorted(NAMES.split())
    assert module.asgi.fetch is module.inner.fetch and issubclass(module.NonRetryableError, Exception)
    with pytest.raises(ImportError, match=r"'cloudflare:workers' is a module of JavaScript.*from workers import env"):
        module.import_from_javascript("cloudflare:workers")
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        module.inner.nope  # noqa: B018


def test_modules_beside_the_main_one(load: Load, tmp_path: Path) -> None:
    """They are imported by their names; one of the project's own goes before ours, but for `workers`."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/__init__.py").write_text("ANSWER = 42")
    (tmp_path / "asgi.py").write_text("OWN = True")
    (tmp_path / "workers.py").write_text("raise AssertionError")
    module = load("from lib import ANSWER\nimport asgi\nfrom workers import Response\n")
    assert module.ANSWER == 42 and module.asgi.OWN


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import js", "'js' is Pyodide's bridge to JavaScript, and Stepwell runs Workers under CPython"),
        ("from pyodide.ffi import to_js", "bindings take dicts and lists as they are"),
        ("import nope_nope", "If 'nope_nope' is one of the project's dependencies, install it"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_what_cannot_be_imported(load: Load, source: str, sentence: str) -> None:
    """With its traceback, and what to do."""
    with pytest.raises(UsageError) as caught:
        load(source)
    assert sentence in str(caught.value) and "entry.py could not be imported" in str(caught.value)


def test_only_a_workers_process_has_them(tmp_path: Path) -> None:
    """An import of Stepwell does not bring a module `workers` along."""
    code = "import stepwell, stepwell.workers.entrypoints, sys; sys.exit('workers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60).returncode == 0
    with pytest.raises(UsageError, match="there is no file"):
        load_main(tmp_path / "nowhere.py")
