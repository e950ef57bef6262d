"""Actors: turns in child processes, 100,000 that are idle, and 100,000 alarms."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import psutil

from bench.result import Result, percentile
from stepwell.store.sqlite import migrate
from stepwell.store.sqlite_files import APPLICATION_ID
from tests.support.processes import Server, until

APP = str(Path(__file__).parent / "actors_app.py")
ALARMS_S = 1000
"""Alarms that are due in each second."""


def turns(folder: Path, scale: int) -> list[Result]:
    """Turns a second over 1,000 actors that a function calls at the same time, each answered when what it wrote is durable."""
    home = folder / "turns"
    home.mkdir()
    server = Server(home, APP)
    try:
        server.synced("bench-turns")
        process = psutil.Process(server.popen.pid)
        ran(server, 1000, 1, "add")
        results = []
        for name, method in (("that write", "add"), ("that only read", "look")):
            rounds = 20 // min(scale, 4)
            children = process.children()
            cpu, theirs = sum(process.cpu_times()[:2]), sum(sum(child.cpu_times()[:2]) for child in children)
            seconds = ran(server, 1000, rounds, method)
            cpu, theirs = sum(process.cpu_times()[:2]) - cpu, sum(sum(child.cpu_times()[:2]) for child in children) - theirs
            count = 1000 * rounds
            results += [
                Result(f"actors, turns {name}, over 1,000 actors", count / seconds, "/s"),
                Result(f"actors, turns {name}: server's CPU a turn", 1e6 * cpu / count, "µs"),
                Result(f"actors, turns {name}: children's CPU a turn", 1e6 * theirs / count, "µs"),
            ]
        results.append(Result("one actor, turns that write, one after the other", 500 / ran(server, 1, 500, "add"), "/s"))
        return results
    finally:
        server.kill()


def ran(server: Server, actors: int, rounds: int, method: str) -> float:
    """Run the function; how long it says that it took."""
    event = server.ask("/e/x", {"name": "bench/turns", "data": {"actors": actors, "rounds": rounds, "method": method}})["ids"][0]
    until(lambda: [run for run in server.ask(f"/v1/events/{event}/runs")["data"] if run["status"] == "Completed"], "the turns end", 120)
    (run,) = server.ask(f"/v1/events/{event}/runs")["data"]
    return float(run["output"]["seconds"])


def filled(path: Path, actors: int, first_ms: int | None) -> None:
    """A database with so many actors that are in nobody's memory, each with an entry; and an alarm, from a time on, so many a second."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(connection)
    connection.execute("BEGIN")
    for n in range(actors):
        due_ms = None if first_ms is None else first_ms + n * 1000 // ALARMS_S
        actor = ("bench-Sleeper", f"s-{n}", 1, None, 1, 0, 1, 6, due_ms, 0, None, None, 0, 0, None)
        connection.execute(f"INSERT INTO actors VALUES ({', '.join('?' * len(actor))})", actor)
        connection.execute("INSERT INTO actor_entries VALUES ('bench-Sleeper', ?, 0, 'count', ?)", (f"s-{n}", b"1"))
        if due_ms is not None:
            timer = (f"alarm/bench-Sleeper/s-{n}", due_ms, "alarm", f"bench-Sleeper/s-{n}", "")
            connection.execute("INSERT INTO timers (id, due_ms, kind, ref, after) VALUES (?, ?, ?, ?, ?)", timer)
    connection.execute("COMMIT")
    connection.close()


def idle(folder: Path, scale: int) -> list[Result]:
    """What the server holds with 100,000 actors that are idle, beside what it holds with none."""
    count, sizes = 100_000 // scale, []
    for actors in (0, count):
        home = folder / f"idle-{actors}"
        home.mkdir()
        filled(home / "test.db", actors, None)
        server = Server(home, APP)
        try:
            server.synced("bench-turns")
            (kind,) = (kind for kind in server.ask("/api/actors")["kinds"] if kind["kind"] == "bench-Sleeper")
            assert (kind["actors"], kind["in_memory"]) == (actors, 0), kind
            process = psutil.Process(server.popen.pid)
            sizes.append(sum(one.memory_info().rss for one in (process, *process.children())) / 2**20)
        finally:
            server.kill()
    return [Result(f"memory of server and children with {count:,} idle actors, beyond that with none", sizes[1] - sizes[0], "MiB")]


def alarms(folder: Path, scale: int) -> list[Result]:
    """How late the alarms of 100,000 actors go off, 1,000 a second, none of them in memory before."""
    home = folder / "alarms"
    home.mkdir()
    count = 100_000 // scale
    first_ms = time.time_ns() // 10**6 + 15_000 + count // 20
    filled(home / "test.db", count, first_ms)
    server = Server(home, APP)
    try:
        server.synced("bench-turns")
        assert time.time_ns() // 10**6 < first_ms, "the server was not ready in time"
        process = psutil.Process(server.popen.pid)
        cpu = sum(process.cpu_times()[:2])
        time.sleep(max(0.0, first_ms / 1000 - time.time()) + count / ALARMS_S)
        path = home / "test.db"
        until(lambda: counted(path, "SELECT count(*) FROM actor_entries WHERE key = 'late_ms'") == count, "all alarms go off", 120)
        cpu = sum(process.cpu_times()[:2]) - cpu
        connection = sqlite3.connect(path)
        late = [float(value) for (value,) in connection.execute("SELECT CAST(value AS TEXT) FROM actor_entries WHERE key = 'late_ms'")]
        connection.close()
        return [
            Result(f"{count:,} alarms, {ALARMS_S:,} a second: late, p50", percentile(late, 0.5), "ms"),
            Result(f"{count:,} alarms, {ALARMS_S:,} a second: late, p99", percentile(late, 0.99), "ms"),
            Result(f"{count:,} alarms, {ALARMS_S:,} a second: the latest", max(late), "ms"),
            Result("server's CPU an alarm", 1e6 * cpu / count, "µs"),
        ]
    finally:
        server.kill()


def counted(path: Path, sql: str) -> int:
    """What a query counts in the database file."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute(sql).fetchone()[0])
    finally:
        connection.close()


ALL = (turns, idle, alarms)
