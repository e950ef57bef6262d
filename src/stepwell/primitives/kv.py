"""Key-value namespaces: a put takes the place of what was there. What has expired is not seen, and goes with the sweep."""

from __future__ import annotations

from stepwell.engine.commands import Command, Delete, Effect, Reply, SetRow
from stepwell.engine.inputs_primitives import KvWritten
from stepwell.engine.view import Select, Selection, View


def select_written(written: KvWritten) -> list[Selection]:
    """What is under the keys now."""
    keys = dict.fromkeys((*(entry.key for entry in written.puts), *written.deletes))
    return [Select("kv", (written.namespace, key)) for key in keys]


def on_kv_written(view: View, written: KvWritten) -> list[Command | Effect]:
    """Put, then delete; of two puts of one key the last one holds."""
    puts = {entry.key: entry for entry in written.puts}
    deletes = [key for key in dict.fromkeys(written.deletes) if key in puts or view.get("kv", (written.namespace, key)) is not None]
    commands: list[Command | Effect] = [SetRow(entry) for key, entry in puts.items() if key not in written.deletes]
    commands += [Delete("kv", (written.namespace, key)) for key in deletes if view.get("kv", (written.namespace, key)) is not None]
    return [*commands, Reply(None)]
