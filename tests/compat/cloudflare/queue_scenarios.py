"""Queues: what a consumer decides and what then comes again, batches, delays, dead letters, what may be sent."""

from __future__ import annotations

from typing import Any

from tests.compat.cloudflare.scenario import Consumer, Error, Observation, Op, Scenario, shown

ABC: list[Op] = [["sendBatch", [{"body": "a"}, {"body": "b"}, {"body": "c"}]]]
FIELDS_BY_NAME = "what is sent as JSON is kept with its fields in the order of their names; all else is the same"
PRODUCTION_KEEPS_ACKS = "an explicit ack is kept, as in production: `ack()` and `ackAll()` hold whatever the handler comes to afterwards"
REFUSED = Error("Error", "Unknown Internal Error (15000)")


def seen(**messages: str) -> Observation:
    """Deliveries of messages, and no more."""
    return Observation(messages=messages)


def decided(
    id: str, title: str, expected: Observation, *first: Op, window_s: float = 2.5, here: Observation | None = None, **fields: Any
) -> Scenario:
    """A scenario of what the consumer does with the first delivery of a, b and c; it returns from every other."""
    if here is not None:
        fields.setdefault("differs_because", PRODUCTION_KEEPS_ACKS)
    return Scenario(
        id=id,
        group="Queues",
        title=title,
        expected=expected,
        steps=ABC,
        decisions=[list(first)],
        window_s=window_s,
        here=here,
        **{"consumer": Consumer(), **fields},
    )


ONCE = seen(a="1", b="1", c="1")
TWICE = seen(a="1, 2", b="1, 2", c="1, 2")
LATER = seen(a="1, 2 after 2 s", b="1, 2 after 2 s", c="1, 2 after 2 s")
LATER_4 = seen(a="1, 2 after 4 s", b="1, 2 after 4 s", c="1, 2 after 4 s")
LATE_S = 4.0
"""How long is looked for what comes after two seconds."""

THROW: Op = ["throw", "Error", "the consumer fails"]

DECISIONS = (
    decided("returns", "the handler returns", ONCE),
    decided("ack-and-retry", "`a.ack(); b.retry()`", seen(a="1", b="1, 2", c="1"), ["ack", "a"], ["retry", "b"]),
    decided(
        "throws",
        "it throws: everything comes again, with its id and timestamp",
        Observation(messages=TWICE.messages, kept=("id", "timestamp", "body")),
        THROW,
    ),
    decided("ack-throws", "`a.ack()`, throws", TWICE, ["ack", "a"], THROW, here=seen(a="1", b="1, 2", c="1, 2")),
    decided(
        "ack-retry-throws",
        "`a.ack(); b.retry(2 s)`, throws",
        seen(a="1, 2", b="1, 2 after 2 s", c="1, 2"),
        ["ack", "a"],
        ["retry", "b", 2],
        THROW,
        window_s=LATE_S,
        here=seen(a="1", b="1, 2 after 2 s", c="1, 2"),
    ),
    decided("ack-all-throws", "`ackAll()`, throws", TWICE, ["ackAll"], THROW, here=ONCE),
    decided("retry-all-throws", "`retryAll(2 s)`, throws", LATER, ["retryAll", 2], THROW, window_s=LATE_S),
    decided("throws-with-delay", "throws, consumer's `retry_delay` 2 s", LATER, THROW, window_s=LATE_S, consumer=Consumer(retry_delay=2)),
    decided("ack-then-retry", "`ack()`, then `retry()` on each", ONCE, *[[op, name] for name in "abc" for op in ("ack", "retry")]),
    decided("retry-then-ack", "`retry()`, then `ack()` on each", TWICE, *[[op, name] for name in "abc" for op in ("retry", "ack")]),
    decided("ack-all-then-retry", "`ackAll()`, then `b.retry()`", ONCE, ["ackAll"], ["retry", "b"]),
    decided("retry-then-ack-all", "`b.retry()`, then `ackAll()`", seen(a="1", b="1, 2", c="1"), ["retry", "b"], ["ackAll"]),
    decided(
        "ack-then-retry-all",
        "`a.ack()`, then `retryAll()`",
        TWICE,
        ["ack", "a"],
        ["retryAll"],
        here=seen(a="1", b="1, 2", c="1, 2"),
    ),
    decided("retry-all-then-ack", "`retryAll()`, then `a.ack()`", TWICE, ["retryAll"], ["ack", "a"]),
    decided("retry-all-then-ack-all", "`retryAll()`, then `ackAll()`", TWICE, ["retryAll"], ["ackAll"]),
    decided("ack-all-then-retry-all", "`ackAll()`, then `retryAll()`", ONCE, ["ackAll"], ["retryAll"]),
    decided("retry-all-4-2", "`retryAll(4 s)`, then `retryAll(2 s)`", LATER, ["retryAll", 4], ["retryAll", 2], window_s=LATE_S),
    decided("retry-all-2-4", "`retryAll(2 s)`, then `retryAll(4 s)`", LATER_4, ["retryAll", 2], ["retryAll", 4], window_s=6),
    decided("retry-all-2-none", "`retryAll(2 s)`, then `retryAll()`", LATER, ["retryAll", 2], ["retryAll"], window_s=LATE_S),
    decided(
        "retry-4-2",
        "`a.retry(4 s)`, then `a.retry(2 s)`",
        seen(a="1, 2 after 2 s", b="1", c="1"),
        ["retry", "a", 4],
        ["retry", "a", 2],
        window_s=LATE_S,
    ),
    decided(
        "retry-2-none", "`a.retry(2 s)`, then `a.retry()`", seen(a="1, 2", b="1", c="1"), ["retry", "a", 2], ["retry", "a"], window_s=LATE_S
    ),
    decided(
        "whose-delay",
        "`a.retry(6 s); b.retry(); retryAll(2 s)`, consumer's `retry_delay` 4 s",
        seen(a="1, 2 after 6 s", b="1, 2 after 2 s", c="1, 2 after 2 s"),
        ["retry", "a", 6],
        ["retry", "b"],
        ["retryAll", 2],
        window_s=8,
        consumer=Consumer(retry_delay=4),
    ),
    decided(
        "retry-delay",
        "`a.retry()`, consumer's `retry_delay` 2 s",
        seen(a="1, 2 after 2 s", b="1", c="1"),
        ["retry", "a"],
        window_s=LATE_S,
        consumer=Consumer(retry_delay=2),
    ),
    decided(
        "retry-0",
        "`a.retry(0)`, consumer's `retry_delay` 2 s",
        seen(a="1, 2", b="1", c="1"),
        ["retry", "a", 0],
        window_s=LATE_S,
        consumer=Consumer(retry_delay=2),
    ),
    decided(
        "retry-all-delay",
        "`retryAll()`, consumer's `retry_delay` 2 s",
        LATER,
        ["retryAll"],
        window_s=LATE_S,
        consumer=Consumer(retry_delay=2),
    ),
    decided(
        "retry-all-0",
        "`retryAll(0)`, consumer's `retry_delay` 2 s",
        TWICE,
        ["retryAll", 0],
        window_s=LATE_S,
        consumer=Consumer(retry_delay=2),
    ),
    decided("wait-until-rejects", "the handler returns, a `waitUntil` rejects", TWICE, ["waitUntil", [["sleep", 300], THROW]]),
    decided(
        "wait-until-retries",
        "`a.retry()` in a `waitUntil`, after the handler's return",
        seen(a="1, 2", b="1", c="1"),
        ["waitUntil", [["sleep", 300], ["retry", "a"]]],
    ),
    decided("forgotten", "what nobody awaits raises an error", ONCE, ["forget", [THROW]]),
)

ALWAYS_RETRIED: list[list[Op]] = [[["retryAll"]]] * 4

DEAD_LETTERS = (
    Scenario(
        id="dead-letter",
        group="Queues",
        title="`max_retries` 2, then the dead-letter queue: id, timestamp, body and type are kept",
        expected=Observation(
            messages={"a": "1, 2, 3, dead 1", "b": "1, 2, 3, dead 1", "c": "1, 2, 3, dead 1"},
            bodies={"a": shown({"name": "a", "list": [1, None, True]}), "b": shown("b"), "c": shown({"bytes": [99]})},
            kept=("id", "timestamp", "body"),
        ),
        here=Observation(
            messages={"a": "1, 2, 3, dead 1", "b": "1, 2, 3, dead 1", "c": "1, 2, 3, dead 1"},
            bodies={"a": shown({"list": [1, None, True], "name": "a"}), "b": shown("b"), "c": shown({"bytes": [99]})},
            kept=("id", "timestamp", "body"),
        ),
        differs_because=FIELDS_BY_NAME,
        steps=[
            [
                "sendBatch",
                [
                    {"body": {"name": "a", "list": [1, None, True]}},
                    {"body": "b", "contentType": "text"},
                    {"body": {"bytes": [99]}, "contentType": "bytes"},
                ],
            ]
        ],
        consumer=Consumer(max_retries=2, dead_letter=True),
        decisions=ALWAYS_RETRIED,
        window_s=3,
    ),
    Scenario(
        id="dead-letter-thrown",
        group="Queues",
        title="The same where the handler throws",
        expected=seen(a="1, 2, dead 1", b="1, 2, dead 1", c="1, 2, dead 1"),
        steps=ABC,
        consumer=Consumer(max_retries=1, dead_letter=True),
        decisions=[[THROW]] * 4,
        window_s=3,
    ),
    Scenario(
        id="dead-letter-at-once",
        group="Queues",
        title="`max_retries` 0: straight to the dead-letter queue, whatever delay the retry has",
        expected=seen(a="1, dead 1", b="1", c="1"),
        steps=ABC,
        consumer=Consumer(max_retries=0, dead_letter=True),
        decisions=[[["retry", "a", 4]]],
        window_s=LATE_S,
    ),
    Scenario(
        id="dropped",
        group="Queues",
        title="`max_retries` 1, no dead-letter queue: dropped",
        expected=TWICE,
        steps=ABC,
        consumer=Consumer(max_retries=1),
        decisions=ALWAYS_RETRIED,
        window_s=3,
    ),
)


def sent(*names: str) -> Op:
    """All in one `sendBatch`."""
    return ["sendBatch", [{"body": name} for name in names]]


BATCHES = (
    Scenario(
        id="by-size",
        group="Queues",
        title="Seven messages, batches of 3: two at once, the rest when `max_batch_timeout` has passed",
        expected=Observation(
            messages={**dict.fromkeys("abcdef", "1"), "g": "1 after 2 s"},
            batches=("a b c", "d e f", "g"),
            trace=("4 messages, 12 bytes are left", "1 messages, 3 bytes are left", "0 messages, 0 bytes are left"),
        ),
        steps=[sent(*"abcdefg")],
        consumer=Consumer(max_batch_timeout=2),
        decisions=[[["metrics"]]],
        window_s=4,
    ),
    Scenario(
        id="by-timeout",
        group="Queues",
        title="Timeout 4 s, another message after 2 s: one batch 4 s after the first",
        expected=Observation(messages={"a": "1 after 4 s", "b": "1 after 2 s"}, batches=("a b",)),
        steps=[["send", "a"], ["sleep", 2000], ["send", "b"]],
        consumer=Consumer(max_batch_timeout=4),
        window_s=6,
    ),
    Scenario(
        id="timeout-0",
        group="Queues",
        title="Timeout 0: at once, and what was sent together stays together",
        expected=Observation(messages={"a": "1", "b": "1", "c": "1"}, batches=("a b c",)),
        steps=[sent(*"abc")],
        consumer=Consumer(max_batch_size=10),
        window_s=2.5,
    ),
    Scenario(
        id="one-at-a-time",
        group="Queues",
        title="`max_concurrency` 1: the next batch when the handler and its `waitUntil` have ended",
        expected=Observation(
            messages=dict.fromkeys("abc", "1"),
            batches=("a", "b", "c"),
            overlap=1,
            trace=("0.3 s later", "0.3 s later", "0.3 s later"),
        ),
        steps=[sent(*"abc")],
        consumer=Consumer(max_batch_size=1),
        decisions=[[["waitUntil", [["sleep", 300], ["mark", "0.3 s later"]]]]],
        window_s=3,
    ),
    Scenario(
        id="two-at-a-time",
        group="Queues",
        title="`max_concurrency` 2, four batches",
        expected=Observation(messages=dict.fromkeys("abcd", "1"), overlap=1),
        here=Observation(messages=dict.fromkeys("abcd", "1"), overlap=2),
        differs_because="`max_concurrency` is followed, as in production; the local runtime handles one batch of a queue at a time",
        steps=[sent(*"abcd")],
        consumer=Consumer(max_batch_size=1, max_concurrency=2),
        decisions=[[["sleep", 400]]],
        window_s=4,
    ),
    Scenario(
        id="order-after-retry",
        group="Queues",
        title="What is retried goes behind what waits",
        expected=Observation(messages={"a": "1, 2", "b": "1", "c": "1, 2", "d": "1"}, batches=("a b c", "d a c")),
        steps=[sent(*"abcd")],
        consumer=Consumer(max_batch_timeout=2),
        decisions=[[["retry", "a"], ["retry", "c"]]],
        window_s=4,
    ),
    Scenario(
        id="delays",
        group="Queues",
        title="A message's delay: its own (0 too), else the call's, else the producer's `delivery_delay`",
        expected=seen(a="1", b="1 after 2 s", c="1 after 4 s", d="1 after 6 s", e="1", f="1 after 2 s"),
        steps=[
            ["sendBatch", [{"body": "a", "delaySeconds": 0}, {"body": "b", "delaySeconds": 2}, {"body": "c"}]],
            ["sendBatch", [{"body": "d"}, {"body": "e", "delaySeconds": 0}], {"delaySeconds": 6}],
            ["send", "f", {"delaySeconds": 2}],
        ],
        consumer=Consumer(),
        delivery_delay=4,
        window_s=8,
    ),
)

MANY = [{"body": f"message {number}"} for number in range(101)]


def refused(id: str, title: str, expected: tuple[Any, ...], *steps: Op, messages: dict[str, str] | None = None, **fields: Any) -> Scenario:
    """A scenario of what may be sent; what is refused is not stored."""
    return Scenario(
        id=id,
        group="Queues",
        title=title,
        expected=Observation(results=tuple(shown(one) for one in expected), messages=messages),
        steps=list(steps),
        consumer=Consumer(max_batch_size=100),
        window_s=2.5,
        **fields,
    )


def long(characters: int) -> dict[str, Any]:
    """A long text."""
    return {"repeat": ["x", characters]}


SENDING = (
    refused(
        "delays-refused",
        "Delays below 0 and above 86,400 s are refused",
        (REFUSED, REFUSED, REFUSED, REFUSED, None),
        ["send", "a", {"delaySeconds": -1}],
        ["send", "b", {"delaySeconds": 86401}],
        ["sendBatch", [{"body": "c", "delaySeconds": 86401}]],
        ["sendBatch", [{"body": "d"}], {"delaySeconds": -1}],
        ["send", "e", {"delaySeconds": 86400}],
        messages={},
    ),
    refused(
        "sizes",
        "128,000 bytes a message; JSON counts as it is written",
        (None, REFUSED, None, REFUSED),
        ["send", long(128_000), {"contentType": "text"}],
        ["send", long(128_001), {"contentType": "text"}],
        ["send", long(127_998)],
        ["send", long(127_999)],
        messages={"127998 characters": "1", "128000 characters": "1"},
    ),
    refused(
        "sizes-of-batches",
        "100 messages and 288,000 bytes in one `sendBatch`; one that is too large refuses all",
        (REFUSED, None, REFUSED, REFUSED),
        ["sendBatch", MANY],
        ["sendBatch", [{"body": long(size), "contentType": "text"} for size in (96_000, 96_001, 95_999)]],
        ["sendBatch", [{"body": long(size), "contentType": "text"} for size in (96_000, 96_000, 96_001)]],
        ["sendBatch", [{"body": "a"}, {"body": long(128_001), "contentType": "text"}]],
        messages={"95999 characters": "1", "96000 characters": "1", "96001 characters": "1"},
        here=Observation(results=(shown(REFUSED),) * 4, messages={}),
        differs_because="256,000 bytes in one `sendBatch`, as production's documentation says; the local runtime takes 288,000",
    ),
    Scenario(
        id="a-hundred",
        group="Queues",
        title="100 messages in one `sendBatch`",
        expected=seen(**{f"message {number}": "1" for number in sorted(range(100), key=str)}),
        steps=[["sendBatch", MANY[:100]]],
        consumer=Consumer(max_batch_size=100),
        window_s=2.5,
    ),
    Scenario(
        id="bodies",
        group="Queues",
        title="Bodies by content type: json, text, bytes",
        expected=Observation(
            bodies={
                "a": shown({"name": "a", "deep": {"list": [1, 2.5, None, False, "é"]}}),
                "b": shown("b"),
                "[1, 2]": shown([1, 2]),
                "null": shown(None),
                "text": shown("text"),
                "bytes": shown({"bytes": list(b"bytes")}),
            }
        ),
        here=Observation(
            bodies={
                "a": shown({"deep": {"list": [1, 2.5, None, False, "é"]}, "name": "a"}),
                "b": shown("b"),
                "[1, 2]": shown([1, 2]),
                "null": shown(None),
                "text": shown("text"),
                "bytes": shown({"bytes": list(b"bytes")}),
            }
        ),
        differs_because=FIELDS_BY_NAME,
        steps=[
            ["send", {"name": "a", "deep": {"list": [1, 2.5, None, False, "é"]}}],
            ["send", "b"],
            ["send", [1, 2], {"contentType": "json"}],
            ["send", None],
            ["send", "text", {"contentType": "text"}],
            ["send", {"bytes": list(b"bytes")}, {"contentType": "bytes"}],
        ],
        consumer=Consumer(max_batch_size=6),
        window_s=2.5,
    ),
    refused(
        "bodies-refused",
        "What fits no content type is refused, and nothing of its batch is stored",
        (
            Error("TypeError", 'Content Type "text" requires a value of type string, but received: number'),
            Error("TypeError", 'Content Type "bytes" requires a value of type ArrayBufferView, but received: string'),
            Error("TypeError", "Unsupported queue message content type: xml"),
            Error("TypeError", "sendBatch() requires at least one message"),
            Error("TypeError", 'Content Type "text" requires a value of type string, but received: number'),
        ),
        ["send", 1, {"contentType": "text"}],
        ["send", "text", {"contentType": "bytes"}],
        ["send", "text", {"contentType": "xml"}],
        ["sendBatch", []],
        ["sendBatch", [{"body": "a"}, {"body": 1, "contentType": "text"}]],
        messages={},
    ),
)

QUEUES = (*DECISIONS, *DEAD_LETTERS, *BATCHES, *SENDING)
