"""Delivers batches: claims them where there is room, makes their calls, and reports what becomes of them.

Like the dispatcher it holds no durable state: a delivery is leased to its node, and what has no call in hand comes back.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from stepwell.drivers.base import NotTaken, Rooms
from stepwell.engine.inputs_primitives import BatchAnswered, DeliveriesReturned, QueueClaimed
from stepwell.engine.model_primitives import Message
from stepwell.engine.registry import Function, Registry
from stepwell.errors import StoreUnavailable, Superseded
from stepwell.primitives.queue import REDELIVER_AT_ONCE, Settled
from stepwell.primitives.queue_claims import DELIVERIES_AT_ONCE, Deliver, Delivered
from stepwell.protocol.calls import DISCOVERY, Answer, CallRequest, Checkpoint, Failed, Lost, Ops, Returned, failed
from stepwell.protocol.codec import Json, canonical, text
from stepwell.protocol.ids import ulid
from stepwell.protocol.queues import Outcome, decode_outcome, event_name
from stepwell.runtime.clock import Clock
from stepwell.runtime.dispatcher import MakeCall, Submit
from stepwell.store.base import Reader

DELIVERIES_MAX = 64
"""Batches that are out at a time, of all queues."""


REST_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""How long a queue rests whose consumer is out of reach, the first time and each further time in a row; the last one serves all others."""


class BatchEnded(msgspec.Struct, frozen=True):
    """How a batch ended: its messages as they were delivered, and what became of them. `lost`: nobody has said so.

    `error` is what the consumer threw.
    """

    queue: str
    messages: tuple[Message, ...]
    settled: Settled
    took_ms: int
    lost: bool
    error: Json | None = None


Told = Callable[[BatchEnded], object]
"""Whom to tell how a batch ended."""


class Deliveries:
    """The batches of a node that are out."""

    def __init__(
        self,
        *,
        submit: Submit,
        registry: Callable[[], Registry],
        drivers: Mapping[str, MakeCall],
        reader: Reader,
        clock: Clock,
        holder: str,
        deliveries_max: int = DELIVERIES_MAX,
        rooms: Mapping[str, Rooms] | None = None,
        on_settled: Told | None = None,
    ) -> None:
        self._submit, self._registry, self._drivers, self._reader = submit, registry, drivers, reader
        self._clock, self._holder, self._deliveries_max, self._on_settled = clock, holder, deliveries_max, on_settled
        self._rooms = dict(rooms or {})
        for room in self._rooms.values():
            room.on_room(self._has_room)
        self._full: dict[str, dict[str, None]] = {}
        self._coming: Counter[str] = Counter()
        self._stirred: dict[str, None] = {}
        self._resting: dict[str, asyncio.TimerHandle] = {}
        self._rests: dict[str, int] = {}
        self._claiming: dict[str, int] = {}
        self._out: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True
        self._missing: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def deliveries_out(self) -> Mapping[str, int]:
        """How many batches are out, by their queue."""
        return Counter(self._out.values())

    def stir(self, queue: str) -> None:
        """A queue may have a batch."""
        self._stirred[queue] = None
        self._claim()

    def registered(self) -> None:
        """The functions have changed: any queue may have a consumer now, and one that is in reach."""
        for handle in self._resting.values():
            handle.cancel()
        self._resting.clear()
        self._rests.clear()
        self.stir_all()

    def stir_all(self) -> None:
        """Any queue may have a batch."""
        for queue in self._registry().consumers:
            self._stirred[queue] = None
        self._claim()

    def close(self) -> None:
        """Claim no more."""
        self._open = False

    async def idle(self) -> None:
        """Returns when no batch is out."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Cut off the batches that are out; they come back with the node's next epoch."""
        self.close()
        for handle in self._resting.values():
            handle.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _claim(self) -> None:
        """Ask for the queues that were stirred, each once at a time, in turn."""
        if not self._open:
            return
        consumers = self._registry().consumers
        for queue in list(self._stirred):
            room = self._deliveries_max - len(self._out) - sum(self._claiming.values())
            if room <= 0:
                return
            if queue in self._claiming or queue in self._resting:
                continue
            del self._stirred[queue]
            function = consumers.get(queue)
            if function is None or function.driver not in self._drivers:
                continue
            if function.driver in self._rooms and function.config.consumer is not None:
                app = function.row.app_name
                room = min(room, self._rooms[function.driver].room(app) - self._coming[app])
                if room <= 0:
                    # Its app takes no batch now: it is looked at again when the driver tells of room.
                    self._full.setdefault(app, {})[queue] = None
                    continue
            self._claiming[queue] = room = min(room, DELIVERIES_AT_ONCE)
            self._coming[function.row.app_name] += room
            claim = QueueClaimed(ulid(self._clock.now_ms(), self._clock.entropy(10)), self._holder, queue, room)
            self._submit(claim).add_done_callback(lambda future, queue=queue, app=function.row.app_name: self._claimed(queue, app, future))  # type: ignore[misc]

    def _rest(self, queue: str) -> None:
        """The queue's consumer is out of reach: what waits would all be tried in vain, as often as it may be, in a moment."""
        if queue in self._resting:
            return
        rests = self._rests[queue] = self._rests.get(queue, 0) + 1
        pause_s = REST_S[min(rests, len(REST_S)) - 1]
        self._resting[queue] = asyncio.get_running_loop().call_later(pause_s, self._rested, queue)

    def _rested(self, queue: str) -> None:
        self._resting.pop(queue, None)
        self.stir(queue)

    def _has_room(self, app: str) -> None:
        """A driver tells that an app takes more calls."""
        waiting = self._full.pop(app, None)
        if waiting is not None:
            self._stirred.update(waiting)
            self._claim()

    def _claimed(self, queue: str, app: str, future: asyncio.Future[Any]) -> None:
        self._coming[app] -= self._claiming.pop(queue)
        if not future.cancelled() and future.exception() is None:
            delivered: Delivered | None = future.result()
            if delivered is not None and delivered.more:
                self._stirred[queue] = None
        self._claim()

    def send(self, effect: Deliver) -> None:
        """Make a delivery's call."""
        self._out[effect.delivery.id] = effect.delivery.queue
        self._idle.clear()
        function = self._registry().functions.get(effect.delivery.function_id)
        self._coming["" if function is None else function.row.app_name] += 1
        task = asyncio.get_running_loop().create_task(self._deliver(effect, function))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, effect: Deliver, function: Function | None) -> None:
        delivery, started_ms = effect.delivery, self._clock.now_ms()
        rooms, request, recorded = None, None, False
        try:
            self._coming["" if function is None else function.row.app_name] -= 1  # from now on the driver counts it
            make = None if function is None else self._drivers.get(function.driver)
            if function is None or make is None:
                await self._submit(DeliveriesReturned((delivery.id,), "its consumer is not there any more"))
                return
            rooms, request = self._rooms.get(function.driver), self._request(effect, function)
            try:
                answer = await make(request, _refuse_steps)
            except Superseded as error:
                answer = failed("NoSteps", str(error))
            except NotTaken as reason:
                await self._submit(DeliveriesReturned((delivery.id,), str(reason)))
                return
            except Exception as error:
                answer = failed(type(error).__name__, str(error), traceback.format_exc())
            took_ms = self._clock.now_ms() - started_ms
            missing = out_of_reach(answer)
            if missing is None:
                self._rests.pop(delivery.queue, None)
            else:
                self._rest(delivery.queue)
                if missing.code == NOT_HERE:
                    await self._submit(DeliveriesReturned((delivery.id,), missing.message))
                    return
                # It may have been reached, and have died of the batch: a loss, of which so many are a failed try.
                answer = Lost(reason=missing.message)
            outcome = outcome_of(answer)
            settled: Settled = await self._submit(BatchAnswered(delivery.id, outcome))
            recorded = True
            if self._on_settled is not None:
                thrown = None if isinstance(outcome, Lost) else outcome.error
                self._on_settled(BatchEnded(delivery.queue, effect.messages, settled, took_ms, isinstance(outcome, Lost), thrown))
        except StoreUnavailable:
            return  # the node has stopped: its next epoch brings the batch back
        finally:
            if rooms is not None and request is not None:
                rooms.settled(request.request_id, recorded=recorded)
            self._out.pop(delivery.id, None)
            if not self._out:
                self._idle.set()
            self._claim()

    def _request(self, effect: Deliver, function: Function) -> CallRequest:
        """The batch as a call of its consumer: each message is an event."""
        delivery = effect.delivery
        backlog = {"bytes": effect.backlog.bytes, "messages": effect.backlog.messages, "oldest_ms": effect.backlog.oldest_ms}
        return CallRequest(
            run_id=delivery.id,
            function_id=function.id,
            function_uuid=function.row.uuid,
            app_id=function.row.app_name,
            url=function.config.url,
            step_id=DISCOVERY,
            attempt=0,
            max_attempts=1,
            request_version=-1,
            stack=(),
            disable_immediate_execution=False,
            item_id=delivery.id,
            fence=1,
            request_id=ulid(self._clock.now_ms(), self._clock.entropy(10)),
            events=message_events(delivery.queue, effect.messages, canonical(backlog)),
            steps={},
        )

    async def compare(self) -> None:
        """Return the deliveries that are leased to this node but have no call in hand, seen so twice in a row."""
        held = set(await self._reader.held_deliveries(self._holder))
        missing = held - self._out.keys()
        lost = sorted(missing & self._missing)
        self._missing = missing
        for start in range(0, len(lost), REDELIVER_AT_ONCE):
            some = tuple(lost[start : start + REDELIVER_AT_ONCE])
            await self._submit(DeliveriesReturned(some, "the node had no call for it in hand"))
        self.stir_all()


NOT_HERE = "app_not_found"
"""The code of a call that nobody could have taken."""


class OutOfReach(msgspec.Struct, frozen=True):
    """Why a call did not come to its app, or nothing came back."""

    code: str = ""
    message: str = ""


_out_of_reach = msgspec.json.Decoder(OutOfReach)


def out_of_reach(answer: Answer) -> OutOfReach | None:
    """What kept a call from its app; `None` where the app has answered, or its process was lost."""
    if not isinstance(answer, Failed) or b'"code"' not in answer.error:
        return None
    try:
        told = _out_of_reach.decode(answer.error)
    except msgspec.DecodeError:
        return None  # an app's own error, with other fields
    return told if told.code in (NOT_HERE, "http_unreachable") else None


def message_events(queue: str, messages: Iterable[Message], backlog: Json) -> tuple[Json, ...]:
    """Messages as the events of a call, in canonical form: the data of each tells its body, and what is known of it."""
    name = text(event_name(queue))
    return tuple(
        b'{"data":{"attempts":%d,"backlog":%s,"body":%s,"content_type":"%s"},"id":"%s","name":%s,"ts":%d,"user":{}}'
        % (
            message.attempts,
            backlog,
            body_of(message),
            message.content_type.encode(),
            message.id.encode(),
            name,
            message.sent_ms,
        )
        for message in messages
    )


def body_of(message: Message) -> Json:
    """A message's body as JSON, which it was stored as, a text, or base64."""
    match message.content_type:
        case "json":
            return message.body
        case "text":
            return text(message.body.decode())
        case "bytes":
            return msgspec.json.encode(message.body)


def outcome_of(answer: Answer) -> Outcome | Lost:
    """What an answer says of a batch: our SDK tells it whole; of any other, a return acks and a failure retries all."""
    match answer:
        case Lost():
            return answer
        case Failed():
            return Outcome(error=answer.error)
        case Ops():
            return Outcome(error=canonical({"name": "NoSteps", "message": NO_STEPS}))
        case Returned():
            return decode_outcome(answer.data)


NO_STEPS = "the consumer of a queue has no steps: start a function from it, or let the queue trigger one"


async def _refuse_steps(checkpoint: Checkpoint) -> None:
    raise Superseded(NO_STEPS)
