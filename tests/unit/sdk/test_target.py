"""Finding the app that a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

import stepwell
from stepwell.sdk.target import load_app


def write(folder: Path, name: str, code: str) -> str:
    (folder / name).write_text(f"import stepwell\n{code}\n")
    return str(folder / name)


def test_files(tmp_path: Path) -> None:
    """By name, by `app`, as the only one; what stands beside the file can be imported."""
    write(tmp_path, "beside_it.py", "NAME = 'beside'")
    one = write(tmp_path, "one_app.py", "from beside_it import NAME\nthe_only = stepwell.App(NAME)")
    assert load_app(one).name == "beside"
    assert load_app(one) is load_app(f"{one}:the_only"), "imported once"
    two = write(tmp_path, "two-apps.py", "app = stepwell.App('first')\nother = stepwell.App('second')")
    assert (load_app(two).name, load_app(f"{two}:other").name) == ("first", "second")


def test_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the working directory."""
    write(tmp_path, "some_module_here.py", "class Place:\n    app = stepwell.App('inner')\napp = stepwell.App('outer')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_app("some_module_here:app").name == "outer"
    assert load_app("some_module_here:Place.app").name == "inner"
    assert load_app("some_module_here").name == "outer"


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        ("x = 1", "", 'has no app: write app = stepwell.App\\("name"\\)'),
        ("a = stepwell.App('a')\nb = stepwell.App('b')", "", "has several apps \\(a, b\\): name one, as .*:a"),
        ("a = 1", ":a", "has no app 'a': it is 1, not a stepwell.App"),
        ("def (:", "", "could not be imported:(?s:.*)SyntaxError"),
        ("import no_such_thing_here", "", "could not be imported:(?s:.*)No module named 'no_such_thing_here'"),
        ("raise SystemExit(2)", "", "could not be imported:(?s:.*)SystemExit: 2"),
        (
            "app = stepwell.App('a')\n@app.function(retries=99)\ndef f(ctx): ...",
            "",
            "retries is 99(?s:.*)wrong_app.py, line 3: @app.function",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, code: str, name: str, message: str) -> None:
    """With the user's own traceback where their code failed."""
    path = write(tmp_path, "wrong_app.py", code)
    with pytest.raises(stepwell.UsageError, match=message) as raised:
        load_app(path + name)
    assert "sdk/target.py" not in str(raised.value)


def test_nothing_there() -> None:
    """A sentence for each way to name nothing."""
    for target, message in (("gone.py", "there is no file"), (":app", "names no app"), ("gone_module:app", "no module 'gone_module'")):
        with pytest.raises(stepwell.UsageError, match=message) as raised:
            load_app(target)
        assert "\n" not in str(raised.value)
