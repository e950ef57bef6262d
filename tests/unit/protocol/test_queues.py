"""What becomes of a batch by its report alone; the report's form; names and ids; the settings of consumers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.config import config_from_json, config_json
from stepwell.protocol.config_reader import read_function
from stepwell.protocol.queues import (
    DELAY_MS_MAX,
    OUTCOME_KEY,
    Consumer,
    Outcome,
    Retry,
    checked_name,
    decode_outcome,
    encode_outcome,
    event_name,
    is_message_id,
    message_id,
    settled,
)

THROWN = b'{"message":"no","name":"Error"}'
A, B, C = "a", "b", "c"

ROWS: list[tuple[str, Outcome, dict[str, int], int]] = [
    ("returns", Outcome(), {}, 0),
    ("acks a, retries b", Outcome(acks=(A,), retries={B: None}), {B: 0}, 0),
    ("acks a, throws", Outcome(acks=(A,), error=THROWN), {B: 0, C: 0}, 0),
    ("acks a, retries b in 2 s, throws", Outcome(acks=(A,), retries={B: 2_000}, error=THROWN), {B: 2_000, C: 0}, 0),
    ("acks all, throws", Outcome(ack_all=True, error=THROWN), {}, 0),
    ("acks all but b, throws", Outcome(retries={B: None}, ack_all=True, error=THROWN), {B: 0}, 0),
    ("retries all in 2 s, throws", Outcome(retry_all=True, retry_all_delay_ms=2_000, error=THROWN), {A: 2_000, B: 2_000, C: 2_000}, 0),
    ("throws, retry_delay 2 s", Outcome(error=THROWN), {A: 2_000, B: 2_000, C: 2_000}, 2_000),
    ("retries b, then acks all", Outcome(retries={B: None}, ack_all=True), {B: 0}, 0),
    ("acks a, then retries all", Outcome(acks=(A,), retry_all=True), {B: 0, C: 0}, 0),
    (
        "retries a in 3 s, b, and all in 1 s, retry_delay 5 s",
        Outcome(retries={A: 3_000, B: None}, retry_all=True, retry_all_delay_ms=1_000),
        {A: 3_000, B: 1_000, C: 1_000},
        5_000,
    ),
    ("retries all, retry_delay 2 s", Outcome(retry_all=True), {A: 2_000, B: 2_000, C: 2_000}, 2_000),
    ("retries all in 0 s, retry_delay 3 s", Outcome(retry_all=True, retry_all_delay_ms=0), {A: 0, B: 0, C: 0}, 3_000),
    ("retries a in 0 s, retry_delay 3 s", Outcome(retries={A: 0}), {A: 0}, 3_000),
    ("retries a, retry_delay 3 s", Outcome(retries={A: None}), {A: 3_000}, 3_000),
    ("names what is not in the batch", Outcome(acks=("x",), retries={"y": 5}), {}, 0),
    ("contradicts itself", Outcome(acks=(A, B), retries={A: 5}, ack_all=True, retry_all=True), {A: 5, C: 0}, 0),
    ("asks for delays that nobody takes", Outcome(retries={A: -5, B: 1 << 62}), {A: 0, B: DELAY_MS_MAX}, 0),
    ("asks for one delay for all that nobody takes", Outcome(retry_all=True, retry_all_delay_ms=-1), {A: 0, B: 0, C: 0}, 0),
]
"""What a handler does; its report; the messages of a, b, c that come again, and after how long; the consumer's own delay."""


@pytest.mark.parametrize("outcome, again, retry_delay_ms", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_becomes_of_a_batch(outcome: Outcome, again: dict[str, int], retry_delay_ms: int) -> None:
    """Row by row as observed, and as the platform does it where its simulator differs: explicit acks hold when a handler throws."""
    decided = settled(outcome, (A, B, C), retry_delay_ms)
    assert list(decided) == [A, B, C]
    assert {message: retry.delay_ms for message, retry in decided.items() if retry is not None} == again


@pytest.mark.parametrize("outcome", [row[1] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_report_is_read_as_it_was_written(outcome: Outcome) -> None:
    """Canonical JSON under one key, without what is as if nothing were said."""
    data = encode_outcome(outcome)
    assert decode_outcome(data) == outcome
    assert data.startswith(b'{"%s":{' % OUTCOME_KEY.encode())


def test_an_error_that_is_null_is_none() -> None:
    """As if it were not told."""
    assert decode_outcome(b'{"stepwell/batch":{"acks":["a"],"error":null}}') == Outcome(acks=(A,))


def test_the_form_of_a_report() -> None:
    """Exact: whoever reads it may be older than whoever writes it."""
    outcome = Outcome(acks=(A,), retries={B: None, C: 5}, retry_all=True, retry_all_delay_ms=7, error=THROWN)
    assert encode_outcome(outcome) == (
        b'{"stepwell/batch":{"acks":["a"],"error":{"message":"no","name":"Error"},"retries":{"b":null,"c":5},'
        b'"retry_all":true,"retry_all_delay_ms":7}}'
    )
    assert encode_outcome(Outcome()) == b'{"stepwell/batch":{}}'


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"5", b'{"done":true}', b'{"acks":["a"]}'])
def test_anything_else_that_a_function_returns_acks_its_batch(data: bytes) -> None:
    """A consumer of another SDK returns what it likes."""
    assert decode_outcome(data) == Outcome()


@pytest.mark.parametrize("told", [b"null", b"[]", b'{"acks":5}', b'{"retries":{"a":"soon"}}', b'{"retries":{"a":1e999}}'])
def test_a_report_that_cannot_be_read_acks_nothing(told: bytes) -> None:
    """It may have named what is to come again."""
    outcome = decode_outcome(b'{"stepwell/batch":%s}' % told)
    assert outcome.error is not None and b"cannot be read" in outcome.error
    assert settled(outcome, (A,), 0) == {A: Retry(0)}


@pytest.mark.parametrize("name", ["q", "A-b_c.9", "x" * 64])
def test_names_of_queues(name: str) -> None:
    """Letters, digits, and a few signs that are plain in a path."""
    assert checked_name(name) == name and event_name(name) == f"stepwell/queue.{name}"


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "a\n", None, 5])
def test_what_is_no_name(name: object) -> None:
    """The refusal shows it, and says what a name is."""
    with pytest.raises(ProtocolError, match=r"is no name of a queue: 1 to 64 letters, digits and -_\."):
        checked_name(name)


def test_ids_are_in_the_order_of_their_numbers() -> None:
    """32 hex digits."""
    ids = [message_id(number) for number in (0, 255, 1 << 80, (1 << 128) - 1)]
    assert ids == sorted(ids) and all(map(is_message_id, ids))
    assert not any(map(is_message_id, ("", "f" * 31, "F" * 32, "f" * 33, "g" * 32, "f" * 32 + "\n")))


# Settings.


def read(consumer: Any, triggers: Any = None) -> Any:
    """A function with these settings of its consumer."""
    return read_function({"id": "a-b", "name": "b", "triggers": [{"queue": "q"}] if triggers is None else triggers, "consumer": consumer})


def test_a_consumer_is_read_with_the_platforms_defaults() -> None:
    """An empty object is one; none makes the queue start runs."""
    assert read({}).consumer == Consumer() == Consumer(
        max_batch_size=10, max_batch_timeout_ms=5_000, max_retries=3, retry_delay_ms=0, max_concurrency=250, dead_letter=""
    )  # fmt: skip
    config = read(None)
    assert config.consumer is None and config.triggers[0].queue == "q"


def test_every_setting_of_a_consumer_is_read() -> None:
    """And kept with the function as it was."""
    told = {
        "maxBatchSize": 100, "maxBatchTimeout": "60s", "maxRetries": 100, "retryDelay": "24h", "maxConcurrency": 1,
        "deadLetter": "dead", "retention": "14d",
    }  # fmt: skip
    config = read(told)
    assert config.consumer == Consumer(
        max_batch_size=100, max_batch_timeout_ms=60_000, max_retries=100, retry_delay_ms=86_400_000, max_concurrency=1,
        dead_letter="dead", retention_ms=14 * 86_400_000,
    )  # fmt: skip
    assert config_from_json(config_json(config)) == config
    assert read({"retention": ""}).consumer.retention_ms is None


@pytest.mark.parametrize(
    "setting, value, says",
    [
        ("maxBatchSize", 101, "consumer.maxBatchSize is 101; it must be between 1 and 100"),
        ("maxBatchSize", 0, "between 1 and 100"),
        ("maxBatchSize", 1.5, "must be a whole number, not 1.5"),
        ("maxBatchTimeout", "61s", "at most 1m"),
        ("maxBatchTimeout", 5, "must be a duration"),
        ("maxRetries", 101, "between 0 and 100"),
        ("maxRetries", True, "must be a whole number"),
        ("retryDelay", "86401s", "consumer.retryDelay"),
        ("retryDelay", "soon", "consumer.retryDelay"),
        ("maxConcurrency", 251, "between 1 and 250"),
        ("maxConcurrency", math.inf, "must be a whole number"),
        ("deadLetter", "a b", "is no name of a dead-letter queue"),
        ("deadLetter", 5, "must be a string"),
        ("deadLetter", "q", "the dead-letter queue of queue 'q' cannot be itself"),
        ("retention", "59s", "at least 1m"),
        ("retention", "15d", "at most"),
    ],
)
def test_a_setting_out_of_its_bounds_is_refused(setting: str, value: Any, says: str) -> None:
    """With its name, the value, and what may be."""
    with pytest.raises(ProtocolError) as refused:
        read({setting: value})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "consumer, triggers, says",
    [
        ([], None, "consumer must be an object"),
        ({}, [{"event": "x"}], "consumer needs exactly one trigger, the queue that it consumes"),
        ({}, [], "exactly one trigger"),
        ({}, [{"queue": "q"}, {"queue": "r"}], "exactly one trigger"),
        (None, [{"queue": "q", "event": "x"}], "either an event or a cron or a queue"),
        (None, [{"queue": "a b"}], "is no name of a queue"),
        (None, [{"queue": "q"}, {"event": "stepwell/queue.q"}], "'q' is there twice"),
        (None, [{"event": "stepwell/queue."}], "is no name of a queue"),
    ],
)
def test_triggers_that_are_refused(consumer: Any, triggers: Any, says: str) -> None:
    """A consumer has one queue, and a queue a name."""
    with pytest.raises(ProtocolError) as refused:
        read(consumer, triggers)
    assert says in str(refused.value)


def test_other_sdks_name_queues_by_events() -> None:
    """Their triggers have no field for a queue."""
    assert read(None, [{"event": "stepwell/queue.q"}]).triggers[0].queue == "q"
