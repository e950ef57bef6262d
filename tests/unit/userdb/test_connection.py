"""A user's file: what their SQL may do in it, what it gives, how errors are told, and that a transaction is all or nothing."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import SqlError, StaleFence, StoreRefused
from stepwell.userdb import limits, policy
from stepwell.userdb.binding import ACTORS, DATABASES, Rules
from stepwell.userdb.connection import Deadline, Rows, UserDatabase


@pytest.fixture
def db(tmp_path: Path) -> Iterator[UserDatabase]:
    """A database with a table."""
    opened = UserDatabase(tmp_path / "a.sqlite")
    ask(
        opened, "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, c INTEGER NOT NULL DEFAULT 1 CHECK (c > 0), p INTEGER REFERENCES t)"
    )
    yield opened
    opened.close()


def ask(db: UserDatabase, sql: str, *values: object, rules: Rules = DATABASES) -> Rows:
    """One text in a transaction of its own."""
    with db.transaction():
        return db.run(sql, values, rules)


def refused(db: UserDatabase, sql: str, *values: object) -> str:
    """The error of one text, of which nothing is stored."""
    before = contents(db)
    with pytest.raises(SqlError) as raised:
        ask(db, sql, *values)
    assert contents(db) == before
    return str(raised.value)


def contents(db: UserDatabase) -> list[str]:
    """All that is in the file, as another program reads it."""
    other = sqlite3.connect(db.path)
    try:
        return list(other.iterdump())
    finally:
        other.close()


def test_the_file_is_safe_and_bounded(db: UserDatabase) -> None:
    """WAL, an fsync for each commit, foreign keys, a largest size."""
    assert db.own("PRAGMA journal_mode") == [("wal",)]
    assert db.own("PRAGMA synchronous") == [(2,)]
    assert db.own("PRAGMA foreign_keys") == [(1,)]
    assert db.own("PRAGMA max_page_count") == [(limits.FILE_BYTES_MAX // 4096,)]


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("SELEC 1", 'near "SELEC": syntax error at offset 0: SQLITE_ERROR'),
        ("SELECT 1, 2,, 3", 'near ",": syntax error at offset 12: SQLITE_ERROR'),
        ("SELECT 'é', 2,, 3", 'near ",": syntax error at offset 15: SQLITE_ERROR'),
        ("SELECT 1; SELEC 2", 'near "SELEC": syntax error at offset 1: SQLITE_ERROR'),
        ("SELECT 'a", 'unrecognized token: "\'a" at offset 7: SQLITE_ERROR'),
        ("INSERT INTO t", "incomplete input: SQLITE_ERROR"),
        ("SELECT * FROM nope", "no such table: nope: SQLITE_ERROR"),
        ("SELECT x", "no such column: x at offset 7: SQLITE_ERROR"),
        ('SELECT t."X" FROM t', "no such column: t.X at offset 7: SQLITE_ERROR"),
        ("SELECT x FROM t WHERE x = 1", "no such column: x: SQLITE_ERROR"),
        ("UPDATE t SET x = 1", "no such column: x: SQLITE_ERROR"),
        ("SELECT id FROM t, t AS s", "ambiguous column name: id at offset 7: SQLITE_ERROR"),
        ("SELECT nope(1)", "no such function: nope at offset 7: SQLITE_ERROR"),
        ("SELECT sqlite_version()", "not authorized to use function: sqlite_version at offset 7: SQLITE_ERROR"),
        ("SELECT abs()", "wrong number of arguments to function abs() at offset 7: SQLITE_ERROR"),
        ("INSERT INTO t (u) VALUES ('a')", "UNIQUE constraint failed: t.u: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_UNIQUE)"),
        ("INSERT INTO t (id) VALUES (1)", "UNIQUE constraint failed: t.id: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_PRIMARYKEY)"),
        ("INSERT INTO t (c) VALUES (0)", "CHECK constraint failed: c > 0: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_CHECK)"),
        ("INSERT INTO t (c) VALUES (NULL)", "NOT NULL constraint failed: t.c: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_NOTNULL)"),
        ("INSERT INTO t (p) VALUES (9)", "FOREIGN KEY constraint failed: SQLITE_CONSTRAINT (extended: SQLITE_CONSTRAINT_FOREIGNKEY)"),
        ("", "SQL code did not contain a statement."),
        ("-- nothing\n;", "SQL code did not contain a statement."),
        ("VACUUM", "cannot VACUUM from within a transaction: SQLITE_ERROR"),
        ("SELECT ?", "Wrong number of parameter bindings for SQL query."),
        ("SELECT ? FROM nope", "no such table: nope: SQLITE_ERROR"),
        ("SELECT ?; SELECT 1", "When executing multiple SQL statements in a single call, only the last statement can have parameters."),
        ("SELECT 1\0", "the query contains a null character: SQLITE_ERROR"),
        ("SELECT '\ud800'", "the SQL is no Unicode text: surrogates not allowed: SQLITE_ERROR"),
        (f"SELECT 1{' ' * limits.SQL_BYTES_MAX}", "statement too long: SQLITE_TOOBIG"),
        (f"SELECT zeroblob({limits.VALUE_BYTES_MAX + 1})", "string or blob too big: SQLITE_TOOBIG"),
        (f"SELECT {'-' * 120}1", "incomplete input: SQLITE_ERROR"),
        (f"SELECT {'1+' * 120}1", "Expression tree is too large (maximum depth 100): SQLITE_ERROR"),
    ],
)
def test_errors_are_told_as_there(db: UserDatabase, sql: str, text: str) -> None:
    """In Cloudflare's words; nothing is stored."""
    ask(db, "INSERT INTO t (id, u) VALUES (1, 'a')")
    assert refused(db, sql) == text


def test_an_error_has_its_name(db: UserDatabase) -> None:
    """For code that wants to know which it was."""
    ask(db, "INSERT INTO t (u) VALUES ('a')")
    with pytest.raises(SqlError) as raised:
        ask(db, "INSERT INTO t (u) VALUES ('a')")
    assert raised.value.code == "SQLITE_CONSTRAINT_UNIQUE"


def test_parameters_have_a_bound(db: UserDatabase) -> None:
    """A hundred, and the error says which one is too many."""
    hundred = "SELECT " + ", ".join("?" * 100)
    assert ask(db, hundred, *range(100)).rows == [tuple(range(100))]
    assert refused(db, "SELECT " + ",".join("?" * 101), *range(101)) == "too many SQL variables at offset 207: SQLITE_ERROR"
    assert refused(db, "SELECT " + ",".join("?" * 101)) == "too many SQL variables at offset 207: SQLITE_ERROR"
    assert refused(db, "SELECT ?101", 1).startswith("variable number must be between ?1 and ?100")
    assert refused(db, "SELECT 1", 1) == "Wrong number of parameter bindings for SQL query."
    assert ask(db, "SELECT ?2, ?1", 1, 2).rows == [(2, 1)]
    assert ask(db, "SELECT :a, @b, :a, ?", 1, 2, 3).rows == [(1, 2, 1, 3)]


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "begin immediate",
        "/* a */ COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "-- a\nRELEASE a",
        "SELECT 1; COMMIT",
        ";ROLLBACK TO a",
    ],
)
def test_transactions_are_not_the_users(db: UserDatabase, sql: str) -> None:
    """Refused by their first word, with what to use, before any statement of the text is run."""
    text = refused(db, sql)
    assert text.startswith("To execute a transaction, please use the state.storage.transaction() or state.storage.transactionSync() APIs")
    assert "batch([…])" in text


REFUSALS = ("not authorized", "is prohibited", "no such table: other.t", "cannot VACUUM", "may not be modified", "unknown database")


@pytest.mark.parametrize(
    "sql",
    [
        *("ATTACH 'b' AS b", "DETACH main", "EXPLAIN BEGIN", "VACUUM INTO 'b'"),
        *("CREATE TEMP TABLE a (x)", "CREATE TABLE temp.a (x)", "CREATE TEMP VIEW a AS SELECT 1"),
        "CREATE TEMP TRIGGER a AFTER INSERT ON t BEGIN SELECT 1; END",
        *(
            "SELECT * FROM _cf_METADATA",
            "SELECT count(*) FROM _CF_metadata",
            "DELETE FROM _cf_METADATA",
            "UPDATE _cf_METADATA SET value = 9",
        ),
        *("INSERT INTO _cf_METADATA VALUES ('a', 1)", "DROP TABLE _cf_METADATA", "ALTER TABLE _cf_METADATA RENAME TO mine"),
        *(
            "CREATE TABLE _cf_x (a)",
            "CREATE VIEW _cf_x AS SELECT 1",
            "CREATE INDEX i ON _cf_METADATA (value)",
            "CREATE INDEX _cf_i ON t (u)",
        ),
        "CREATE TRIGGER a AFTER UPDATE ON _cf_METADATA BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE _cf_f USING fts5(x)",
        *("PRAGMA journal_mode", "PRAGMA journal_mode = DELETE", "PRAGMA writable_schema = 1", "PRAGMA synchronous = OFF"),
        *("PRAGMA max_page_count = 1", "PRAGMA database_list", "PRAGMA table_info(_cf_METADATA)", "PRAGMA user_version = 3"),
        *("SELECT * FROM pragma_database_list", "SELECT * FROM pragma_table_info('_cf_METADATA')"),
        *(
            "SELECT * FROM sqlite_stmt",
            "SELECT count(*) FROM dbstat",
            "CREATE VIRTUAL TABLE a USING dbstat",
            "CREATE VIRTUAL TABLE a USING fts4(x)",
        ),
        *(
            "SELECT load_extension('a')",
            "SELECT fts3_tokenizer('simple')",
            "SELECT sqlite_compileoption_get(0)",
            "SELECT sqlite_source_id()",
        ),
        "UPDATE sqlite_master SET sql = 'x'",
        "SELECT * FROM other.t",
    ],
)
def test_what_is_refused(db: UserDatabase, sql: str) -> None:
    """Other files, temporary things, what is ours, settings, functions that tell of the machine: none of it, by no detour."""
    db.claim(1)
    text = refused(db, sql)
    assert any(words in text for words in REFUSALS), text
    db.claim(1)


def test_statements_of_ours_are_not_a_way_around(db: UserDatabase) -> None:
    """A text equal to one of ours, but for its mark, is asked for permission as any other; triggers and views too."""
    db.claim(7)
    assert db.own("SELECT value FROM _cf_METADATA WHERE key = 'fence'") == [(7,)]
    assert "prohibited" in refused(db, "SELECT value FROM _cf_METADATA WHERE key = 'fence'")
    for hidden in (
        "CREATE VIEW v AS SELECT * FROM _cf_METADATA",
        "CREATE TRIGGER spy AFTER DELETE ON t BEGIN DELETE FROM [_cf_METADATA]; END",
        'CREATE TABLE held (k REFERENCES "_CF_METADATA" (value))',
        "CREATE TABLE held (k REFERENCES '_cf_METADATA' ON DELETE RESTRICT)",
        "ALTER TABLE t ADD COLUMN k REFERENCES `_cf_METADATA`",
    ):
        assert refused(db, hidden) == "not authorized: SQLITE_AUTH"
    assert ask(db, "SELECT name FROM sqlite_schema WHERE name NOT LIKE '_cf_%' AND name = 't'").rows == [("t",)]
    spy = "CREATE TRIGGER spy AFTER INSERT ON t BEGIN UPDATE _cf_METADATA SET value = 0; END; INSERT INTO t (id) VALUES (5)"
    assert refused(db, spy).endswith("SQLITE_AUTH")
    assert db.own("SELECT value FROM _cf_METADATA") == [(7,)]


def test_what_is_allowed(db: UserDatabase) -> None:
    """Reading the schema, full text, JSON, windows, dates, mathematics, changing tables."""
    assert ask(db, "PRAGMA foreign_keys").rows == [(1,)]
    ask(db, "PRAGMA foreign_keys = OFF")
    assert ask(db, "PRAGMA foreign_keys").rows == [(1,)]
    assert [row[1] for row in ask(db, "PRAGMA table_info(t)").rows] == ["id", "u", "c", "p"]
    assert "t" in [row[1] for row in ask(db, "PRAGMA table_list").rows]
    assert len(ask(db, "PRAGMA index_list(t)").rows) == 1
    assert ask(db, "SELECT name FROM pragma_table_info('t') LIMIT 1").rows == [("id",)]
    assert ask(db, "PRAGMA quick_check").rows == [("ok",)]
    ask(db, "CREATE VIRTUAL TABLE f USING fts5(x)")
    ask(db, "INSERT INTO f VALUES (?)", "a quick fox")
    assert ask(db, "SELECT highlight(f, 0, '<', '>') FROM f WHERE f MATCH 'quick'").rows == [("a <quick> fox",)]
    assert ask(db, "SELECT value ->> '$.a' FROM json_each('[{\"a\": 5}]')").rows == [(5,)]
    assert ask(db, "SELECT sum(c) OVER (), date(0, 'unixepoch'), round(pi(), 2) FROM (SELECT 1 AS c)").rows == [(1, "1970-01-01", 3.14)]
    ask(
        db,
        "ALTER TABLE t ADD COLUMN d; ALTER TABLE t RENAME COLUMN d TO e; ALTER TABLE t DROP COLUMN e; ALTER TABLE t RENAME TO s; ANALYZE",
    )
    assert ask(db, "SELECT name FROM sqlite_schema WHERE name = 's'").rows == [("s",)]
    assert ask(db, "EXPLAIN QUERY PLAN SELECT * FROM s").rows


def test_every_function_of_sqlite_is_decided(db: UserDatabase) -> None:
    """Those that are refused are named here: a newer SQLite's new ones are refused until somebody has looked at them."""
    refused_ones = {
        *("fts3_tokenizer", "fts5", "fts5_source_id", "load_extension", "matchinfo", "offsets", "optimize", "rtreecheck", "rtreedepth"),
        *("rtreenode", "sqlite_compileoption_get", "sqlite_compileoption_used", "sqlite_log", "sqlite_source_id", "sqlite_version"),
        *(
            "subtype",
            "sqlite_offset",
            "fts5_locale",
            "fts5_get_locale",
            "fts5_insttoken",
            "unistr",
            "unistr_quote",
            "edit",
            "shell_add_schema",
        ),
    }
    known = {name for (name,) in db.own("SELECT DISTINCT name FROM pragma_function_list")}
    assert refused_ones.isdisjoint(policy.FUNCTIONS)
    if sqlite3.sqlite_version_info < (3, 46):
        assert known - refused_ones - policy.FUNCTIONS == set()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, (None, "null")),
        (True, (1, "integer")),
        (False, (0, "integer")),
        (7, (7, "integer")),
        (2**63 - 1, (2**63 - 1, "integer")),
        (1.0, (1.0, "real")),
        (math.nan, (None, "null")),
        (math.inf, (None, "null")),
        ("é\0", ("é\0", "text")),
        (b"\xff\0", (b"\xff\0", "blob")),
        (bytearray(b"a"), (b"a", "blob")),
        (memoryview(b"b"), (b"b", "blob")),
    ],
)
def test_values(db: UserDatabase, value: object, kept: tuple[Any, str]) -> None:
    """What is bound comes back as what it was; whole numbers stay whole."""
    ((got, kind),) = ask(db, "SELECT ?1, typeof(?1)", value).rows
    assert (got, kind) == kept and type(got) is type(kept[0])


def test_infinity_is_kept_where_the_rules_say_so(db: UserDatabase) -> None:
    """In an actor's file."""
    assert ask(db, "SELECT ?", -math.inf, rules=ACTORS).rows == [(-math.inf,)]
    assert ask(db, "SELECT ?", math.nan, rules=ACTORS).rows == [(None,)]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), [1], {}, "\ud800", 1j])
def test_values_that_no_column_holds(db: UserDatabase, value: object) -> None:
    """Are refused with type, value and what to pass."""
    text = refused(db, "SELECT ?", value)
    assert text.startswith(f"Type '{type(value).__name__}' not supported for value ") and ": " in text


def test_values_have_a_bound(db: UserDatabase) -> None:
    """Two megabytes, texts and blobs alike, as parameter and as row."""
    ask(db, "CREATE TABLE big (x)")
    half = "x" * (limits.VALUE_BYTES_MAX // 2)
    assert refused(db, "SELECT length(?)", half + half + "x") == "string or blob too big: SQLITE_TOOBIG"
    assert refused(db, "SELECT length(?)", bytes(limits.VALUE_BYTES_MAX + 1)) == "string or blob too big: SQLITE_TOOBIG"
    assert ask(db, "SELECT length(?)", half + half).rows == [(limits.VALUE_BYTES_MAX,)]
    assert refused(db, "INSERT INTO big SELECT ?1 || ?1", half) == "string or blob too big: SQLITE_TOOBIG"


def test_text_that_is_none(db: UserDatabase) -> None:
    """Is given as near as can be."""
    assert ask(db, "SELECT CAST(x'ff41' AS TEXT)").rows == [("\ufffdA",)]


def test_results_have_a_bound(db: UserDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """One statement's rows; the error says what to do."""
    monkeypatch.setattr(limits, "RESULT_BYTES_MAX", 2**20)
    many = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT {}) SELECT n FROM r"
    assert len(ask(db, many.format(2**16)).rows) == 2**16
    assert refused(db, many.format(2**16 + 1)) == "the result is larger than 1 MiB: ask for fewer rows, with LIMIT: SQLITE_TOOBIG"
    assert "1 MiB" in refused(db, "SELECT zeroblob(1048570)")


def test_a_file_has_a_bound(tmp_path: Path) -> None:
    """Beyond it writes are refused, and what is there is still read."""
    db = UserDatabase(tmp_path / "small.sqlite", bytes_max=32 * 4096)
    ask(db, "CREATE TABLE t (x)")
    assert refused(db, "INSERT INTO t VALUES (?)", "x" * 200_000) == "database or disk is full: SQLITE_FULL"
    assert ask(db, "SELECT count(*) FROM t").rows == [(0,)]
    assert db.size_bytes <= 32 * 4096
    db.close()


def test_a_query_is_stopped_at_its_deadline(db: UserDatabase) -> None:
    """With all of its transaction."""
    endless = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    with pytest.raises(SqlError, match=r"longer than 0.05 s and was stopped: SQLITE_INTERRUPT"), db.transaction(Deadline.after(0.05)):
        db.run("INSERT INTO t (u) VALUES ('a')", (), DATABASES)
        db.run(endless, (), DATABASES)
    assert ask(db, "SELECT count(*) FROM t").rows == [(0,)]
    assert ask(db, endless.replace("FROM r)", "FROM r LIMIT 300000)")).rows == [(300_000,)], "no deadline any more"


def test_what_a_statement_did(db: UserDatabase) -> None:
    """Rows changed and written, the latest row id, and whether anything changed."""

    def did(sql: str, *values: object) -> tuple[int, int, int, bool]:
        rows = ask(db, sql, *values)
        return rows.changes, rows.rows_written, rows.last_row_id, rows.changed

    assert did("INSERT INTO t (u) VALUES ('a'), ('b')") == (2, 2, 2, True)
    assert did("SELECT 1") == (0, 0, 2, False)
    assert did("UPDATE t SET c = 2 WHERE id > 9") == (0, 0, 2, False)
    assert did("UPDATE t SET c = 2") == (2, 2, 2, True)
    assert did("WITH one AS (SELECT 1 AS id) DELETE FROM t WHERE id IN one") == (1, 1, 2, True)
    assert did("CREATE TABLE log (x)") == (0, 0, 2, True)
    assert did("CREATE TABLE IF NOT EXISTS log (x)") == (0, 0, 2, False)
    ask(db, "CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END")
    assert did("INSERT INTO t (id) VALUES (7)") == (1, 2, 7, True)
    assert did("INSERT INTO log VALUES (0); SELECT 1") == (0, 1, 2, True)
    assert did("INSERT INTO t (id) VALUES (8) RETURNING id") == (1, 2, 8, True)


def test_columns_and_rows(db: UserDatabase) -> None:
    """Names also where there are no rows; the same name twice stays twice; of several statements the last one's."""
    assert ask(db, "SELECT id, u FROM t") == Rows(columns=("id", "u"), rows=[])
    assert ask(db, "SELECT 1 AS a, 2 AS a").columns == ("a", "a")
    assert ask(db, "INSERT INTO t (id) VALUES (1)").columns == ()
    assert ask(db, "SELECT 1; SELECT ?", 2).rows == [(2,)]


def test_a_transaction_is_all_or_nothing(db: UserDatabase) -> None:
    """Also where the last thing, the commit itself, fails; and where SQLite takes it back by itself."""
    with pytest.raises(SqlError, match="FOREIGN KEY"), db.transaction():
        db.run("PRAGMA defer_foreign_keys = ON", (), DATABASES)
        db.run("INSERT INTO t (p) VALUES (99)", (), DATABASES)
    assert ask(db, "SELECT count(*) FROM t").rows == [(0,)]
    ask(db, "PRAGMA defer_foreign_keys = ON; INSERT INTO t (id, p) VALUES (1, 2); INSERT INTO t (id) VALUES (2)")
    with pytest.raises(SqlError, match="the transaction is over"), db.transaction():
        db.run("INSERT INTO t (id) VALUES (3)", (), DATABASES)
        with pytest.raises(SqlError, match="UNIQUE"):
            db.run("INSERT OR ROLLBACK INTO t (id) VALUES (1)", (), DATABASES)
        assert not db.in_transaction
        db.run("INSERT INTO t (id) VALUES (4)", (), DATABASES)
    with pytest.raises(SqlError, match="the transaction is over"), db.transaction(), pytest.raises(SqlError, match="UNIQUE"):
        db.run("INSERT OR ROLLBACK INTO t (id) VALUES (1)", (), DATABASES)
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.run("INSERT INTO t (id) VALUES (5)", (), DATABASES)
        raise ZeroDivisionError
    assert ask(db, "SELECT id FROM t").rows == [(1,), (2,)]


def test_a_savepoint_is_taken_back_by_itself(db: UserDatabase) -> None:
    """And nests; what stands around it stays."""
    with db.transaction():
        db.run("INSERT INTO t (id) VALUES (1)", (), DATABASES)
        with pytest.raises(ZeroDivisionError), db.savepoint():
            db.run("INSERT INTO t (id) VALUES (2)", (), DATABASES)
            with db.savepoint():
                db.run("INSERT INTO t (id) VALUES (3)", (), DATABASES)
            raise ZeroDivisionError
        with db.savepoint(), pytest.raises(ZeroDivisionError), db.savepoint():
            db.run("INSERT INTO t (id) VALUES (4)", (), DATABASES)
            raise ZeroDivisionError
        with db.savepoint():
            db.run("INSERT INTO t (id) VALUES (5)", (), DATABASES)
    assert ask(db, "SELECT id FROM t").rows == [(1,), (5,)]
    with pytest.raises(SqlError, match="the transaction is over"), db.transaction(), db.savepoint(), pytest.raises(SqlError):
        db.run("INSERT OR ROLLBACK INTO t (id) VALUES (1)", (), DATABASES)


def test_an_older_fence_is_refused(tmp_path: Path) -> None:
    """When it claims, and for every transaction after a newer one has claimed; the same fence may come again."""
    old, new = UserDatabase(tmp_path / "a.sqlite"), UserDatabase(tmp_path / "a.sqlite")
    old.claim(3)
    ask(old, "CREATE TABLE t (x)")
    new.claim(3)
    new.claim(4)
    with pytest.raises(StaleFence, match="claimed with fence 4; this one has 3"):
        ask(old, "INSERT INTO t VALUES (1)")
    with pytest.raises(StaleFence, match="claimed with fence 4; 3 is older"):
        old.claim(3)
    assert not old.in_transaction
    ask(new, "INSERT INTO t VALUES (2)")
    assert ask(new, "SELECT x FROM t").rows == [(2,)]
    old.close()
    new.close()
    again = UserDatabase(tmp_path / "a.sqlite")
    with pytest.raises(StaleFence):
        again.claim(2)
    again.claim(4)
    again.close()


def test_clearing_leaves_what_is_ours(db: UserDatabase) -> None:
    """Tables that refer to each other, views, full-text tables, names with quotes."""
    db.claim(1)
    ask(db, "INSERT INTO t (id, p) VALUES (1, 1); CREATE VIEW v AS SELECT 1; CREATE VIRTUAL TABLE f USING fts5(x); ANALYZE")
    ask(db, 'CREATE TABLE "a""b" (x REFERENCES t ON DELETE CASCADE); INSERT INTO "a""b" VALUES (1)')
    ask(db, 'CREATE TRIGGER e AFTER DELETE ON "a""b" BEGIN SELECT raise(ABORT, \'a trigger has run\'); END')
    with db.transaction():
        db.own("CREATE TABLE _cf_KV (k)")
        db.clear()
    assert {name for (name,) in db.own("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%'")} == {"_cf_METADATA", "_cf_KV"}


def test_our_rows_may_hold_more(db: UserDatabase) -> None:
    """A user's largest value beside its key."""
    with db.transaction():
        db.own("CREATE TABLE _cf_KV (k PRIMARY KEY, v)")
        db.own("INSERT INTO _cf_KV VALUES (?, ?)", ("k" * 2048, bytes(limits.VALUE_BYTES_MAX)))
        assert db.own("SELECT length(v) FROM _cf_KV") == [(limits.VALUE_BYTES_MAX,)]
        with pytest.raises(SqlError, match="no such table"):
            db.own("SELECT * FROM nope")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """Is told with its path, and is left as it is."""
    (tmp_path / "text.sqlite").write_text("this is no database, and long enough to be none" * 20)
    for path in (tmp_path / "text.sqlite", tmp_path / "no" / "folder.sqlite"):
        with pytest.raises(StoreRefused, match=str(path)):
            UserDatabase(path)
    assert (tmp_path / "text.sqlite").read_text().startswith("this is no database")
