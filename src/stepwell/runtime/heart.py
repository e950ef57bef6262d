"""The heartbeat: a group of inputs is loaded, decided, saved and published, always in this order.

No input poisons its group: one whose decision raises is answered with its error and leaves nothing behind, the others go on. A
commit refused for its content is tried again, then input by input. What the heart knows of the outside is a store and a clock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from stepwell.engine.commands import Command, Effect, Refuse
from stepwell.engine.inputs import AnyInput, EventsReceived
from stepwell.engine.inputs_primitives import MessagesSent
from stepwell.engine.registry import Registry, Settings
from stepwell.engine.view import Changes, IllegalChange, NotLoaded, Selection, View
from stepwell.errors import Conflict, StoreUnavailable
from stepwell.runtime.clock import Clock
from stepwell.store.base import Store, Transaction
from stepwell.transition import SHARED, select, select_more, transition

GROUP_MS_MAX = 10
"""How long a group may be decided upon before it is committed."""

LOADS_MAX = 50
"""How often one input may ask for more rows before it counts as raising."""


CONFLICTS_MAX = 8
"""How often one input is tried while its commit is refused."""


class Decided(msgspec.Struct):
    """What became of an input: the effects to publish, or the error that it is answered with."""

    effects: list[Effect]
    error: BaseException | None = None


class Beat(msgspec.Struct):
    """A committed group: what became of its inputs, in order (fewer than given: the rest waits for the next), and what changed."""

    decided: list[Decided]
    changes: Changes | None


class Heart:
    """Decides and commits groups against a store, with the registry of the moment."""

    def __init__(self, store: Store, clock: Clock, settings: Settings | None = None) -> None:
        self._store, self._clock = store, clock
        self.registry = Registry(settings=settings)

    async def reload(self) -> None:
        """Read apps and functions anew, after a sync."""
        catalogue = await self._store.reader.catalogue()
        self.registry = Registry(catalogue.apps, catalogue.functions, self.registry.settings)

    async def look(self, selections: Sequence[Selection]) -> View:
        """Rows as they stand between two groups, for questions; nothing is decided."""
        view = View()
        async with self._store.transaction() as tx:
            await tx.load(selections, view)
        return view

    async def set(self, settings: Settings) -> None:
        """Decide by other settings from now on."""
        self.registry.settings = settings
        await self.reload()

    async def handle(self, inputs: Sequence[AnyInput]) -> Beat:
        """One heartbeat. Raises `StoreUnavailable` where the outcome is unknown; the same inputs may then be given again."""
        try:
            return await self._beat(inputs, careful=False)
        except Conflict:
            # A key that was supposed free is taken: look before putting, and decide again.
            if len(inputs) == 1:
                return await self._alone(inputs[0])
            beat = Beat([], None)
            for input in inputs:
                try:
                    one = await self._alone(input)
                except StoreUnavailable:
                    if beat.decided:
                        return beat
                    raise
                beat.decided += one.decided
                beat.changes = merged(beat.changes, one.changes)
            return beat

    async def _alone(self, input: AnyInput) -> Beat:
        """An input by itself, a bounded number of times; then the conflict is its answer."""
        for _ in range(CONFLICTS_MAX - 1):
            with contextlib.suppress(Conflict):
                return await self._beat([input], careful=True)
        try:
            return await self._beat([input], careful=True)
        except Conflict as error:
            return Beat([Decided([], error)], None)

    async def _beat(self, inputs: Sequence[AnyInput], *, careful: bool) -> Beat:
        now_ms = self._clock.now_ms()
        view = View(careful=careful)
        async with self._store.transaction() as tx:
            if careful:
                inputs = [known(input) for input in inputs]
            selections = list(SHARED)
            failed: dict[int, BaseException] = {}
            for i, input in enumerate(inputs):
                try:
                    selections += select(self.registry, input, now_ms)
                except Exception as error:
                    failed[i] = error
            await tx.load(selections, view)
            more = [selection for i, input in enumerate(inputs) if i not in failed for selection in select_more(view, input)]
            if more:
                await tx.load(more, view)
            decided: list[Decided] = []
            until_ms = self._clock.elapsed_ms() + GROUP_MS_MAX
            for i, input in enumerate(inputs):
                if i in failed:
                    decided.append(Decided([], failed[i]))
                    continue
                decided.append(await self._decide(tx, view, input, now_ms))
                if i & 15 == 15 and self._clock.elapsed_ms() > until_ms:
                    break
            changes = view.changes()
            if changes:
                await tx.save(changes)
        return Beat(decided, changes)

    async def _decide(self, tx: Transaction, view: View, input: AnyInput, now_ms: int) -> Decided:
        """Decide one input and apply it to the view; nothing of one that raises stays."""
        for _ in range(LOADS_MAX):
            try:
                commands = transition(self.registry, view, input, now_ms)
                return self._apply(view, commands)
            except NotLoaded as missing:
                await tx.load(missing.selections, view)
            except IllegalChange as error:
                # Rows that were supposed new came into view by another input: the input was committed before.
                if (again := known(input)) is input:
                    return Decided([], error)
                input = again
            except Exception as error:
                # Whatever a decision raises is its sender's answer; the group goes on without it.
                return Decided([], error)
        return Decided([], RuntimeError(f"{type(input).__name__} asked for more rows {LOADS_MAX} times"))

    @staticmethod
    def _apply(view: View, commands: list[Command | Effect]) -> Decided:
        effects = [command for command in commands if isinstance(command, Effect)]
        view.apply([command for command in commands if isinstance(command, Command)])
        refused = next((effect for effect in effects if isinstance(effect, Refuse)), None)
        return Decided(effects, None if refused is None else refused.error)


def known(input: AnyInput) -> AnyInput:
    """The input as it is given a second time: its ids may be stored already."""
    if isinstance(input, EventsReceived) and (input.fresh or input.seeded):
        # That the node tries again is no receipt.
        return msgspec.structs.replace(input, fresh=False, seeded=False)
    if isinstance(input, MessagesSent) and input.fresh:
        return msgspec.structs.replace(input, fresh=False)
    return input


def merged(a: Changes | None, b: Changes | None) -> Changes | None:
    """The changes of two commits, for those who are told of them."""
    if a is None or b is None:
        return a or b
    for table, change in b.tables.items():
        into = a.tables.setdefault(table, type(change)([], [], []))
        into.inserted += change.inserted
        into.updated += change.updated
        into.deleted += change.deleted
    return Changes(a.tables, a.ended_runs + b.ended_runs, a.deleted_runs + b.deleted_runs)
