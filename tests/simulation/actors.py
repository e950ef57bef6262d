"""Actors in the simulated world: activations that write, ghosts that write too late, alarms, crashes, faults of the store.

A model of a few lines says what every input does; after each commit the rows are as the model says, or, where it is not known whether
the commit was made, as before it. What the model cannot say is judged beside it: who was told what, and that no alarm is lost.
"""

from __future__ import annotations

import contextlib
import random
from contextlib import AbstractContextManager

import msgspec

from stepwell.engine import selection
from stepwell.engine.commands import RegistryChanged
from stepwell.engine.inputs import AnyInput, NodeStarted, TimerDue
from stepwell.engine.inputs_actors import Activated, ActorActivated, ActorsReleased, ActorWrote, AlarmAnswered
from stepwell.engine.model import TimerKind
from stepwell.engine.registry import Settings
from stepwell.engine.tables import entries_value
from stepwell.errors import StoreUnavailable
from stepwell.primitives import actor as machine
from stepwell.primitives.actor import AlarmFired, StaleActivation
from stepwell.primitives.actor_invariants import actor_violations
from stepwell.protocol.actors import RETRIES_MAX, Outcome
from stepwell.runtime.heart import Decided, Heart
from stepwell.store.memory import MemoryStore
from tests.simulation.bounds import bounded
from tests.simulation.broken import Broken
from tests.simulation.clock import VirtualClock, at_once
from tests.simulation.faults import FaultyStore, Luck
from tests.simulation.world import MakeHeart

KIND = "sim-Thing"
NAMES = ("a", "b/c", "ü")
KEYS = ("k1", "k2", "k3", "k4")
MOVES_MAX = 150
SETTLE_MAX = 400

Who = str


class Model(msgspec.Struct):
    """An actor as it is meant."""

    fence: int = 0
    written: int = 0
    entries: dict[str, bytes] = {}
    alarm: int | None = None
    retry: int = 0
    due: int = 0
    running: tuple[int, int | None, int, str] | None = None  # its number, its time where it may be tried again, its retries, its holder
    firings: int = 0
    held: bool = False
    failed: bool = False
    cleared: bool = False


class Mind(msgspec.Struct):
    """What an activation remembers: it was told what is stored, and knows what it wrote since."""

    name: Who
    fence: int
    entries: dict[str, bytes]
    number: int = 0


class ActorWorld:
    """One seed's course of events. `run` raises `Broken` where a checker finds something."""

    def __init__(self, seed: int, make_heart: MakeHeart = Heart) -> None:
        self.chance = random.Random(seed)
        self.clock = VirtualClock(self.chance)
        self.luck = Luck(self.chance, self.chance.choice((0.0, 0.05, 0.2)))
        memory = MemoryStore()
        self.tables = memory.tables
        self.store = FaultyStore(memory, self.luck)
        self.heart = make_heart(self.store, self.clock, Settings())
        self.model: dict[Who, Model] = {}
        self.inbox: list[AnyInput] = []
        self.minds: list[Mind] = []
        self.ghosts: list[Mind] = []
        self.alarms: list[AlarmFired] = []
        self.late: list[AlarmAnswered] = []
        # In some worlds alarms are rare and always fail: then the last retry is reached.
        self.stubborn = self.chance.random() < 0.2
        self.holder = ""
        self.epoch = 0
        self._new_epoch()

    # The course.

    def run(self) -> None:
        """Interleave at random, then let everything come to its end without faults, and judge."""
        actions = [
            (3, self._activate),
            (8, self._write),
            (8, self._beat),
            (2, self._release),
            (3, self._tick),
            (4, self._answer),
            (1, self._ghost),
            (1, self._crash),
            (1, self._twice),
            (1, self._return),
        ]
        weights = [weight for weight, _ in actions]
        for _ in range(MOVES_MAX):
            self.chance.choices(actions, weights)[0][1]()
        self._settle()

    def _settle(self) -> None:
        self.luck.rate = 0.0
        self._crash()
        for _ in range(SETTLE_MAX):
            while self.inbox:
                self._beat()
            while self.alarms:
                fired = self.alarms.pop()
                outcome: Outcome = "failed" if self.stubborn else "ok"
                self.inbox.append(AlarmAnswered(fired.kind, fired.name, fired.firing, outcome))
            self.inbox += [ActorsReleased(((KIND, mind.name, mind.fence),)) for mind in self.minds]
            self.minds.clear()
            self._return()
            if not self.inbox and not self._timers():
                break
            self._tick(far=True)
        left = [timer.id for timer in self._timers()]
        if left:
            raise Broken(f"{left} do not come to an end")
        for row in self.tables.actors:
            if row.alarm_ms is not None or row.firing is not None or row.holder == self.holder:
                raise Broken(f"at the end {row} is not at rest")
            if machine.is_empty(row) and row.holder is None:
                raise Broken(f"{row} has nothing, and is there")
        old = [entry for entry in self.tables.actor_entries if entry.generation != self.tables.actors.rows[KIND, entry.name].generation]
        if old:
            raise Broken(f"{old} were cleared, and are there")

    def _timers(self) -> list[machine.Timer]:
        return [timer for timer in self.tables.timers if timer.kind is not TimerKind.SWEEP]

    # What may happen.

    def _activate(self) -> None:
        self.inbox.append(ActorActivated(KIND, self.chance.choice(NAMES), self.holder))

    def _write(self) -> None:
        """An activation writes a unit."""
        if self.minds:
            self.inbox.append(self._unit(self.chance.choice(self.minds)))

    def _unit(self, mind: Mind) -> ActorWrote:
        mind.number += 1
        keys = self.chance.sample(KEYS, self.chance.randint(0, 3))
        puts = {key: b"%d" % self.chance.randint(0, 99) for key in keys if self.chance.random() < 0.7}
        deletes = tuple(key for key in keys if key not in puts)
        clear = self.chance.random() < 0.15
        alarm: int | msgspec.UnsetType | None = msgspec.UNSET
        if self.chance.random() < (0.03 if self.stubborn else 0.4):
            alarm = self.chance.choice((None, self.clock.ms, self.clock.ms + 500, self.clock.ms + 5_000))
        return ActorWrote(
            kind=KIND,
            name=mind.name,
            fence=mind.fence,
            number=mind.number,
            puts=tuple(puts.items()),
            deletes=() if clear else deletes,
            clear=clear,
            alarm=alarm,
        )

    def _ghost(self) -> None:
        """One that was taken for gone writes yet, or answers its alarm."""
        if self.ghosts:
            self.inbox.append(self._unit(self.chance.choice(self.ghosts)))
        if self.late:
            self.inbox.append(self.late.pop())

    def _release(self) -> None:
        if self.minds:
            mind = self.minds.pop(self.chance.randrange(len(self.minds)))
            self.ghosts.append(mind)
            self.inbox.append(ActorsReleased(((KIND, mind.name, mind.fence),)))

    def _answer(self) -> None:
        """An alarm that runs comes to its end, or its process does."""
        if self.alarms:
            fired = self.alarms.pop(self.chance.randrange(len(self.alarms)))
            outcome = "failed" if self.stubborn else self.chance.choice(("ok", "failed", "failed", "lost"))
            answered = AlarmAnswered(fired.kind, fired.name, fired.firing, outcome, b'{"name":"E"}' if outcome == "failed" else None)
            self.inbox.append(answered)
            if self.chance.random() < 0.2:
                self.late.append(answered)

    def _twice(self) -> None:
        """Something is told a second time."""
        if self.inbox:
            self.inbox.append(self.chance.choice(self.inbox))

    def _return(self) -> None:
        """The node finds alarms that it has marked as running and knows nothing of: the commit's answer was lost."""
        known = {(fired.name, fired.firing) for fired in self.alarms}
        known |= {(input.name, input.firing) for input in self.inbox if isinstance(input, AlarmAnswered)}
        for row in self.tables.firing_actors(self.holder):
            if (row.name, row.firings) not in known:
                self.inbox.append(AlarmAnswered(KIND, row.name, row.firings, "lost"))

    def _tick(self, *, far: bool = False) -> None:
        """Time goes on, and what is due is told."""
        timers = sorted(self._timers(), key=lambda timer: (timer.due_ms, timer.id))
        if timers and (far or self.chance.random() < (0.9 if self.stubborn else 0.5)):
            self.clock.ms = max(self.clock.ms, timers[0].due_ms)
        else:
            self.clock.ms += self.chance.randint(1, 2_000)
        due = [TimerDue(timer.id, self.holder) for timer in timers if timer.due_ms <= self.clock.ms]
        self.inbox += due[:20]
        if due and self.chance.random() < 0.2:
            self.inbox.append(due[0])

    def _crash(self) -> None:
        """The node dies: what it had not committed is gone, its activations are ghosts, and a new epoch begins."""
        self.inbox = []
        self.late += [AlarmAnswered(fired.kind, fired.name, fired.firing, "ok") for fired in self.alarms if self.chance.random() < 0.5]
        self.alarms = []
        self.ghosts += self.minds
        self.minds = []
        self._new_epoch()

    def _new_epoch(self) -> None:
        others = tuple(holder.id for holder in self.tables.holders)
        self.epoch += 1
        self.holder = f"node/{self.epoch}"
        self.inbox.append(NodeStarted("node", self.holder, others))
        while any(isinstance(input, NodeStarted) for input in self.inbox):
            self._beat()

    # The heartbeat.

    def _beat(self) -> None:
        """One group of what has arrived."""
        if not self.inbox:
            return
        size = self.chance.randint(1, min(8, len(self.inbox)))
        refires = [i for i, input in enumerate(self.inbox[:size]) if isinstance(input, TimerDue) and input.timer_id.startswith("refire/")]
        if refires:
            # A step of this cursor takes what its scan has loaded: alone, the model knows what that is.
            size = refires[0] or 1
        group, self.inbox = self.inbox[:size], self.inbox[size:]
        decided: list[Decided] = []
        with contextlib.suppress(StoreUnavailable):
            decided = at_once(self.heart.handle(group)).decided
        self.inbox = group[len(decided) :] + self.inbox
        for input, one in zip(group, decided, strict=False):
            refused = self._meant(input)
            self._hear(input, one, refused)
        # Of those whose outcome is not known, a beginning may have been committed: none, one that was tried alone, or all.
        for input in group[len(decided) :]:
            if self._differs() is None:
                break
            self._meant(input)
        self._compare(f"after {group}")

    def _hear(self, input: AnyInput, decided: Decided, refused: bool) -> None:
        """What the node does with a committed decision."""
        if (decided.error is not None) != refused:
            raise Broken(f"{input} was answered with {decided.error!r}") from decided.error
        if decided.error is not None and not isinstance(decided.error, StaleActivation):
            raise Broken(f"{input} raised") from decided.error
        if isinstance(input, ActorActivated):
            self._open(input, decided)
        for effect in decided.effects:
            if isinstance(effect, AlarmFired):
                # One whose answer is on its way may have been answered by a group that was tried twice.
                self.alarms = [one for one in self.alarms if one.name != effect.name]
                self.alarms.append(effect)
            assert not isinstance(effect, RegistryChanged)

    def _open(self, input: ActorActivated, decided: Decided) -> None:
        """An activation begins with what is stored; the earlier one of this name is a ghost."""
        (reply,) = [effect.value for effect in decided.effects if isinstance(effect, machine.Reply)]
        assert isinstance(reply, Activated)
        for mind in [mind for mind in self.minds if mind.name == input.name]:
            self.minds.remove(mind)
            self.ghosts.append(mind)
        meant = self.model[input.name].entries
        if reply.whole and dict(reply.entries) != meant:
            raise Broken(f"{input.name!r} came into memory with {reply.entries}, and has {meant}")
        self.minds.append(Mind(input.name, reply.fence, dict(reply.entries)))

    # The model.

    def _meant(self, input: AnyInput) -> bool:
        """What the input is meant to do; gives whether it is refused."""
        match input:
            case ActorActivated():
                model = self.model.setdefault(input.name, Model())
                model.fence, model.written, model.held = max(model.fence + 1, self.clock.ms), 0, True
            case ActorWrote():
                found = self.model.get(input.name)
                if found is None or found.fence != input.fence or input.number > found.written + 1:
                    return True
                if input.number == found.written + 1:
                    self._stored(found, input)
            case ActorsReleased():
                for _, name, fence in input.actors:
                    found = self.model.get(name)
                    if found is not None and found.fence == fence and found.held:
                        found.held = False
                        self._kept(name)
            case TimerDue():
                name = input.timer_id.removeprefix(f"alarm/{KIND}/")
                found = self.model.get(name)
                if input.timer_id.startswith("refire/"):
                    for other in sorted(self.model):
                        running = self.model[other].running
                        if running is not None and input.timer_id == f"refire/{running[3]}":
                            self._ended(other, "lost", None)
                            break  # one at a time (`small_bounds`)
                elif found is not None and found.alarm is not None and found.running is None and found.due <= self.clock.ms:
                    found.firings += 1
                    found.running = (found.firings, found.alarm, found.retry, input.holder)
                    found.alarm, found.retry = None, 0
            case AlarmAnswered():
                found = self.model.get(input.name)
                if found is not None and found.running is not None and found.running[0] == input.firing:
                    self._ended(input.name, input.outcome, input.error)
        return False

    def _stored(self, found: Model, input: ActorWrote) -> None:
        found.written += 1
        if input.clear:
            found.cleared = found.cleared or bool(found.entries)
            found.entries = {}
        for key in input.deletes:
            found.entries.pop(key, None)
        found.entries |= dict(input.puts)
        if input.alarm is not msgspec.UNSET:
            found.alarm, found.retry, found.due = input.alarm, 0, input.alarm or 0
            if input.alarm is None and found.running is not None:
                found.running = (found.running[0], None, *found.running[2:])

    def _kept(self, name: Who) -> None:
        """An actor that is in nobody's memory and has nothing is not there."""
        found = self.model[name]
        if not (found.held or found.entries or found.cleared or found.alarm or found.running or found.failed):
            del self.model[name]

    def _ended(self, name: Who, outcome: str, error: bytes | None) -> None:
        self._answered(name, outcome, error)
        self._kept(name)

    def _answered(self, name: Who, outcome: str, error: bytes | None) -> None:
        found = self.model[name]
        assert found.running is not None
        _, again, retries, _ = found.running
        found.running = None
        if outcome != "lost":
            found.failed = error is not None
        if found.alarm is not None or again is None or outcome == "ok":
            return
        if outcome == "lost":
            found.alarm, found.retry, found.due = again, retries, self.clock.ms
        elif retries < RETRIES_MAX:
            # How long that is has a test of its own.
            of = machine.Actor(kind=KIND, name=name, fence=0)
            wait_ms = machine.retry_ms(of, again, retries)
            found.alarm, found.retry, found.due = again, retries + 1, self.clock.ms + wait_ms

    # What is judged.

    def _differs(self) -> str | None:
        rows = {row.name: row for row in self.tables.actors}
        if set(rows) != set(self.model):
            return f"there are {sorted(rows)}, and are meant to be {sorted(self.model)}"
        for name, model in self.model.items():
            row = rows[name]
            entries = {entry.key: entry.value for entry in self.tables.entries_of(entries_value(row))}
            running = None if row.firing is None else (row.firings, row.fired_ms, row.fired_retry, row.firing)
            is_ = (row.fence, row.written, entries, row.alarm_ms, row.alarm_retry, running, row.firings, row.holder is not None)
            meant = (
                model.fence, model.written, model.entries, model.alarm, model.retry, model.running, model.firings, model.held
            )  # fmt: skip
            if is_ != meant:
                return f"{name!r} is {is_}, and is meant to be {meant}"
        return None

    def _compare(self, when: str) -> None:
        wrong = actor_violations(self.tables)
        if (difference := self._differs()) is not None:
            wrong.append(difference)
        if wrong:
            raise Broken(f"{when}: {'; '.join(wrong)}")


def small_bounds(seed: int) -> AbstractContextManager[None]:
    """Cursors that take several steps, and actors that are not small."""
    values = {"WHOLE_KEYS": seed % 4 + 1, "CLEAR_AT_ONCE": 2, "REFIRE_AT_ONCE": 1}
    return bounded([(module, name, value) for module in (selection, machine) for name, value in values.items()])


def simulate_actors(seed: int, make_heart: MakeHeart = Heart) -> ActorWorld:
    """Run a seed to its end."""
    with small_bounds(seed):
        world = ActorWorld(seed, make_heart)
        world.run()
        return world
