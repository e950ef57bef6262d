"""What users' SQL may do: asked by SQLite for each thing that a statement would do, while it is prepared.

It stays in its own file: nothing attached, nothing temporary, nothing of ours (tables `_cf_…`), no setting of the connection, no
function that tells of the machine or loads code. What is not named here is refused.
"""

from __future__ import annotations

import sqlite3

OWN_PREFIX = "_cf_"
"""Names that are ours, as they are Cloudflare's there."""

_FUNCTIONS = """
    abs changes char coalesce concat concat_ws format glob hex if ifnull iif instr last_insert_rowid length like likelihood likely lower
    ltrim max min nullif octet_length printf quote random randomblob replace round rtrim sign soundex substr substring total_changes trim
    typeof unhex unicode unlikely upper zeroblob
    avg count group_concat median percentile percentile_cont percentile_disc string_agg sum total
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
    current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch
    acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power radians sin sinh
    sqrt tan tanh trunc
    -> ->> json json_array json_array_insert json_array_length json_error_position json_extract json_group_array json_group_object
    json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array
    jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove
    jsonb_replace jsonb_set
    bm25 highlight match snippet
    sqlite_drop_column sqlite_rename_column sqlite_rename_quotefix sqlite_rename_table sqlite_rename_test
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""The core ones, aggregates and windows, dates, mathematics, JSON, full text; the last line is what `ALTER TABLE` calls by itself."""
MODULES = frozenset(["fts5", "fts5vocab"])
"""Virtual tables that may be made."""
HIDDEN = frozenset(["sqlite_stmt", "dbstat", "sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr", "bytecode", "tables_used"])
"""Tables that are there without being made: they show statements of ours, or pages."""

PRAGMAS_OF_TABLES = frozenset(["table_info", "table_xinfo", "index_list", "index_info", "index_xinfo", "foreign_key_list"])
PRAGMAS = PRAGMAS_OF_TABLES | {"table_list", "foreign_key_check", "quick_check", "defer_foreign_keys", "data_version"}
"""They read, or end with the transaction. `data_version` is what FTS5 asks by itself."""

_BY_NAME = frozenset(
    [
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_DROP_VTABLE,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_REINDEX,
        sqlite3.SQLITE_ANALYZE,
        sqlite3.SQLITE_UPDATE,
    ]
)
"""Whose first argument names what is touched."""


def allowed(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's question for one action: `SQLITE_OK`, `SQLITE_DENY`, or `SQLITE_IGNORE` for what has no effect."""
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
            return sqlite3.SQLITE_OK
        case sqlite3.SQLITE_FUNCTION:
            return _if((second or "").lower() in FUNCTIONS)
        case sqlite3.SQLITE_PRAGMA:
            return _pragma((first or "").lower(), second)
        case sqlite3.SQLITE_ANALYZE if is_own(first):
            return sqlite3.SQLITE_IGNORE  # one of all tables: passed over
        case sqlite3.SQLITE_ALTER_TABLE:
            return _if(first == "main" and not is_own(second))
        case sqlite3.SQLITE_CREATE_VTABLE:
            return _if(database == "main" and not is_own(first) and (second or "").lower() in MODULES)
    if action not in _BY_NAME:
        return sqlite3.SQLITE_DENY  # ATTACH, DETACH, transactions, savepoints, whatever is temporary, what is new
    if database == "temp":
        # ALTER TABLE looks for uses of a name in this list of temporary things, which is always empty.
        return _if(first == "sqlite_temp_master" and action in (sqlite3.SQLITE_READ, sqlite3.SQLITE_UPDATE))
    if database not in ("main", None) or is_own(first) or (first or "").lower() in HIDDEN:
        return sqlite3.SQLITE_DENY
    # The second argument names a table where one makes or drops an index or a trigger of it, else a column.
    makes_or_drops = action not in (sqlite3.SQLITE_READ, sqlite3.SQLITE_UPDATE)
    return _if(not (makes_or_drops and is_own(second)))


def is_own(name: str | None) -> bool:
    """Whether a name is ours."""
    return name is not None and name.lower().startswith(OWN_PREFIX)


def _pragma(name: str, argument: str | None) -> int:
    if name == "foreign_keys":
        # They are on; turning them off has no effect, and is no error.
        return sqlite3.SQLITE_OK if argument is None else sqlite3.SQLITE_IGNORE
    if name not in PRAGMAS or is_own(argument):
        return sqlite3.SQLITE_DENY
    return _if(argument is not None or name not in PRAGMAS_OF_TABLES)


def _if(holds: bool) -> int:
    return sqlite3.SQLITE_OK if holds else sqlite3.SQLITE_DENY
