"""Settings: the command line, the environment, a file, the default, in this order; and `stepwell doctor`, which tells them."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from stepwell.cli import main
from stepwell.engine.inputs import AppSynced
from stepwell.protocol.functions import registration
from stepwell.runtime.node import Node
from stepwell.store.sqlite import SqliteStore
from tests.support.processes import Server, refused, running


def doctor(*words: str, config: str | None = None, env: dict[str, str] | None = None) -> Result:
    """`stepwell doctor --json`."""
    return CliRunner().invoke(main, [*(["--config", config] if config else []), "doctor", "--json", *words], env=env)


def settings(*words: str, config: str | None = None, env: dict[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    """Each setting's value and source."""
    result = doctor(*words, config=config, env=env)
    assert result.exit_code == 0, result.output
    return {one["name"]: (one["value"], one["source"]) for one in json.loads(result.output)["settings"]}


def checks(*words: str, code: int = 0) -> dict[str, dict[str, str]]:
    """Each check."""
    result = doctor(*words)
    assert result.exit_code == code, result.output
    return {one["name"]: one for one in json.loads(result.output)["checks"]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("STEPWELL_", "INNGEST_"))]:
        monkeypatch.delenv(name)
    return tmp_path


def test_without_settings_the_defaults_hold() -> None:
    """Every one of them says so."""
    told = settings()
    assert told["port"] == (8288, "default") and told["poll_interval"] == (60.0, "default") and told["max_steps"] == (1000, "default")
    assert {source for _, source in told.values()} == {"default"}
    assert settings("--of", "dev")["poll_interval"] == (5.0, "default")


def test_the_environment_goes_before_the_file(folder: Path) -> None:
    """One command's variable before that of both; one command's table before what stands above it."""
    (folder / "stepwell.toml").write_text(
        'port = 1\nhost = "a"\nmax-state = "64MiB"\nurls = ["http://x/", "http://y/"]\n[start]\nport = 2\n[dev]\nno-discovery = true\n'
    )
    told = settings()
    assert told["port"] == (2, str(Path.cwd() / "stepwell.toml"))
    assert (
        told["max_state"][0] == 64 * 2**20 and told["urls"][0] == ["http://x/", "http://y/"] and told["host"][1].endswith("stepwell.toml")
    )
    assert settings("--of", "dev")["port"][0] == 1 and settings("--of", "dev")["no_discovery"][0] is True
    told = settings(env={"STEPWELL_PORT": "3", "STEPWELL_HOST": "b", "STEPWELL_START_HOST": "c"})
    assert (told["port"], told["host"]) == ((3, "STEPWELL_PORT"), ("c", "STEPWELL_START_HOST"))


def test_pyproject_and_a_named_file(folder: Path) -> None:
    """`[tool.stepwell]`, where there is no `stepwell.toml`; `--config` before both."""
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.stepwell]\nport = 5\n')
    assert settings()["port"][0] == 5
    (folder / "stepwell.toml").write_text("port = 6\n")
    assert settings()["port"][0] == 6
    (folder / "other.toml").write_text("port = 7\n")
    assert settings(config="other.toml")["port"][0] == 7
    assert settings(env={"STEPWELL_CONFIG": "other.toml"})["port"][0] == 7


def test_a_project_without_a_table_of_ours_is_no_file_of_ours(folder: Path) -> None:
    """Most projects."""
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert settings()["port"] == (8288, "default")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("prot = 1", "no setting 'prot'; did you mean 'port'?"),
        ("[start]\nno-discovery = true", "no setting 'start.no-discovery'"),
        ("port = ", "cannot be read"),
        ('port = "x"', "'x' is not a valid integer"),
        ("max-steps = 10001", "10001 is not in the range"),
        ('max-event = "4MiB"', "4MiB is not between 1 KiB and 3 MiB"),
        ('max-state = "much"', "'much' is no size"),
    ],
)
def test_a_file_that_is_wrong_is_refused(folder: Path, content: str, error: str) -> None:
    """Naming what, and the fix; exit code 2."""
    (folder / "stepwell.toml").write_text(content)
    result = doctor()
    assert result.exit_code == 2 and error in result.output, result.output


def test_a_named_file_has_to_be_there() -> None:
    """Unlike the usual ones."""
    result = doctor(config="none.toml")
    assert result.exit_code == 2 and "none.toml is not there" in result.output


def test_keys_come_by_the_sdks_variables_and_are_not_shown() -> None:
    """Ours first, then Inngest's, a fallback beside its key."""
    told = settings(env={"INNGEST_SIGNING_KEY": "ab", "INNGEST_SIGNING_KEY_FALLBACK": "cd", "INNGEST_EVENT_KEY": "secret"})
    assert told["signing_keys"] == ("set (2)", "INNGEST_SIGNING_KEY, INNGEST_SIGNING_KEY_FALLBACK")
    assert told["event_keys"] == ("set (1)", "INNGEST_EVENT_KEY")
    told = settings(env={"INNGEST_SIGNING_KEY": "ab", "STEPWELL_SIGNING_KEY": "ef", "STEPWELL_ADMIN_TOKEN": "secret"})
    assert told["signing_keys"] == ("set (1)", "STEPWELL_SIGNING_KEY") and told["admin_token"] == ("set", "STEPWELL_ADMIN_TOKEN")


def test_what_kubernetes_sets_is_no_port() -> None:
    """Beside a service called stepwell, STEPWELL_PORT is an address."""
    assert settings(env={"STEPWELL_PORT": "tcp://10.0.0.1:8288"})["port"] == (8288, "default")


# What doctor looks at.


async def made(db: Path, *apps: tuple[str, str]) -> None:
    """A database with apps."""
    node = Node(SqliteStore(db))
    await node.start()
    for name, url in apps:
        await node.submit(AppSynced(registration(app_name=name, url=url, sdk="py:v0.5.19", functions=()), "http" if url else "process"))
    await node.stop()


def test_a_sound_database(folder: Path) -> None:
    """Everything is well, and nothing of it was changed."""
    import asyncio

    asyncio.run(made(folder / "x.db", ("here", "")))
    before = (folder / "x.db").read_bytes()
    told = checks("--db", "x.db")
    assert {name: one["state"] for name, one in told.items()} == dict.fromkeys(
        ("server", "disk", "keys", "database", "schema", "wal", "set aside", "clock", "app here"), "ok"
    )
    assert (folder / "x.db").read_bytes() == before


def test_no_database_is_no_fault(folder: Path) -> None:
    """The first start makes one; looking makes none."""
    assert "first start" in checks("--db", "x.db")["database"]["detail"] and not list(folder.iterdir())


def test_what_is_wrong_is_found(folder: Path) -> None:
    """A clock set back, an input set aside, keys that others may read, an app that is gone; exit code 1."""
    import asyncio

    asyncio.run(made(folder / "x.db", ("gone", "http://127.0.0.1:9/x")))
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("INSERT INTO set_aside (id, input, error, created_ms) VALUES ('1', '{}', 'e', 1)")
    connection.execute(
        'INSERT INTO events (id, "key", name, data, user, ts, received_ms) '
        "VALUES ('7ZZZZZZZZZ0000000000000000', 'k', 'n', '{}', '{}', 1, 4102444800000)"
    )
    connection.commit()
    connection.close()
    (folder / "x.db.d" / "keys.json").write_text('{"event_keys":["e"]}')
    (folder / "x.db.d" / "keys.json").chmod(0o644)
    told = checks("--db", "x.db", code=1)
    states = {name: one["state"] for name, one in told.items()}
    assert (states["clock"], states["set aside"], states["keys"], states["app gone"]) == ("fail", "warn", "warn", "fail")
    assert "stepwell apps remove gone" in told["app gone"]["fix"] and told["keys"]["fix"].startswith("chmod 600")


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"x" * 200, b"something else"])
def test_a_file_that_is_no_database(folder: Path, content: bytes) -> None:
    """Damaged, or another program's."""
    (folder / "x.db").write_bytes(content)
    assert checks("--db", "x.db", code=1)["database"]["state"] == "fail"


def test_beside_a_running_server(folder: Path) -> None:
    """Who has the file is told, and the server is not disturbed."""
    with running(Server(folder)) as server:
        server.send("a")
        told = checks("--db", "test.db")
        assert told["server"]["detail"].startswith(f"process {server.popen.pid} ") and told["database"]["state"] == "ok"
        server.send("b")


def test_it_reads_well(folder: Path) -> None:
    """For people, too."""
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0 and "max-steps" in result.output and "disk" in result.output


def test_limits_are_settings(folder: Path) -> None:
    """Of a server's process: an event larger than it takes is refused."""
    (folder / "stepwell.toml").write_text('max-event = "1KiB"\n')
    with running(Server(folder)) as server:
        status, answer = refused(server.url + "/e/x", {"name": "a", "data": {"x": "y" * 1024}})
        assert status == 400 and "at most 1024" in answer["error"]
