"""Queues on a table: inputs are given one by one, the invariants hold after each, and the rows lie open."""

from __future__ import annotations

from typing import Any

from stepwell.engine.commands import Reply
from stepwell.engine.inputs import AppSynced, TimerDue
from stepwell.engine.inputs_primitives import BatchAnswered, MessagesPulled, MessagesSent, NewMessage, QueueClaimed, QueueSet
from stepwell.engine.model import TimerKind
from stepwell.engine.model_primitives import Message, Queue
from stepwell.primitives.queue import QueueStirred
from stepwell.primitives.queue_claims import Deliver
from stepwell.primitives.queue_pulls import Pulled
from stepwell.protocol.answers import Lost
from stepwell.protocol.functions import FunctionConfig, Registration, Trigger
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Consumer, Outcome
from stepwell.runtime.heart import Decided
from tests.simulation.clock import at_once
from tests.unit.engine.bench import HOLDER, Bench

THROWN = b'{"message":"no","name":"Error"}'


def consumes(queue: str = "q", **settings: Any) -> FunctionConfig:
    """The consumer of a queue; batches of one, at once, if nothing is said."""
    settings = {"max_batch_size": 1, "max_batch_timeout_ms": 0, **settings}
    return FunctionConfig(id=f"a-{queue}", name=queue, triggers=(Trigger(queue=queue),), consumer=Consumer(**settings))


def starts(queue: str = "q", **settings: Any) -> FunctionConfig:
    """A function that each message of a queue starts a run of."""
    return FunctionConfig(id=f"a-{queue}", name=queue, triggers=(Trigger(queue=queue),), **settings)


class QueueBench(Bench):
    """An engine with consumers. Messages are known by their bodies, which are numbers."""

    def __init__(self, *functions: FunctionConfig) -> None:
        super().__init__(*functions)
        self.sent = 0

    def sync(self, *functions: FunctionConfig, checksum: str = "2") -> Decided:
        """The app tells its functions anew."""
        told = Registration(app_name="a", url="", sdk="", framework="", app_version="", functions=functions, checksum=checksum)
        decided = self.give(AppSynced(told, "local"))
        at_once(self.heart.reload())
        return decided

    def put(self, count: int = 1, *, queue: str = "q", delay_ms: int = 0, body: bytes | None = None) -> list[str]:
        """Send messages; gives their ids."""
        first = self.sent + 1
        self.sent += count
        new = tuple(NewMessage(f"{n:032x}", b"%d" % n if body is None else body, "json", delay_ms) for n in range(first, first + count))
        decided = self.give(MessagesSent(queue, new, fresh=True))
        assert decided.error is None, decided.error
        return [one.id for one in new]

    def take(self, queue: str = "q", room: int = 64) -> list[Deliver]:
        """A claim: the deliveries that go out."""
        self.reply = self.replied(QueueClaimed(ulid(self.clock.ms, self.clock.entropy(10)), HOLDER, queue, room))
        return [effect for effect in self.decided.effects if isinstance(effect, Deliver)]

    def one(self, queue: str = "q") -> Deliver:
        """The one delivery that goes out now."""
        (deliver,) = self.take(queue)
        return deliver

    def settle(self, deliver: Deliver, outcome: Outcome | Lost | None = None, **told: Any) -> Any:
        """A batch comes back; gives what became of it."""
        return self.replied(BatchAnswered(deliver.delivery.id, outcome or Outcome(**told)))

    def pull(self, limit: int = 10, visibility_ms: int | None = None, queue: str = "q") -> list[Message]:
        """Take messages for a time."""
        pulled: Pulled = self.replied(MessagesPulled(queue, limit, visibility_ms))
        return list(pulled.messages)

    def set(self, queue: str = "q", **settings: Any) -> Queue:
        """Pause it, or say how it is kept."""
        told: Queue = self.replied(QueueSet(queue=queue, **settings))
        return told

    def replied(self, input: Any) -> Any:
        """Give an input that is not refused; gives its reply."""
        self.decided = self.give(input)
        assert self.decided.error is None, self.decided.error
        return next(effect.value for effect in self.decided.effects if isinstance(effect, Reply))

    def due(self, kind: TimerKind) -> bool:
        """Fire what is due of a kind until nothing is. Says whether anything was."""
        fired = False
        while timers := [one for one in self.tables.timers if one.kind is kind and one.due_ms <= self.clock.ms]:
            self.decided = self.give(TimerDue(timers[0].id))
            assert self.decided.error is None, self.decided.error
            fired = True
        return fired

    def wake_ms(self, queue: str = "q") -> int | None:
        """In how long a queue is looked at again, if it is."""
        timer = self.tables.timers.rows.get(f"queue/{queue}")
        return None if timer is None else timer.due_ms - self.clock.ms

    @property
    def stirred(self) -> bool:
        """Whether the last input stirred a queue."""
        return any(isinstance(effect, QueueStirred) for effect in self.decided.effects)

    def waiting(self, queue: str = "q") -> list[int]:
        """The bodies of what waits, in its order."""
        return [int(message.body) for message in self.tables.queue_messages(queue)]

    def message(self, number: int) -> Message:
        """A message by its number."""
        return self.tables.messages.rows[f"{number:032x}"]


def bodies(deliver: Deliver) -> list[int]:
    """What a delivery holds."""
    return [int(message.body) for message in deliver.messages]
