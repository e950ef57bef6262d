"""Sending events: ids, seeds, and what is refused."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from tests.compat.rig import EVENT_KEY, Rig
from tests.support.processes import refused

pytestmark = pytest.mark.compat


@pytest.mark.capability("event-id")
def test_a_second_event_with_the_same_id_starts_nothing(rig: Rig) -> None:
    """The event's own id is its idempotency key; both events are stored."""
    first, second = rig.send("plain", id="once"), rig.send("plain", id="once")
    rig.ended(rig.server.run_of(first))
    assert rig.runs_of(second) == []
    assert rig.server.ask(f"/v1/events/{second}")["data"]["id"] == "once"
    assert rig.notes.count("plain") == 1


@pytest.mark.capability("event-id")
def test_a_send_that_is_repeated_with_its_seed_starts_nothing_more(rig: Rig) -> None:
    """An SDK that heard no answer sends again with the same seed: the ids are the same, and the runs too."""
    import json
    import urllib.request

    seed = f"{int(time.time() * 1000)},{base64.b64encode(b'compatible').decode()}"

    def send() -> list[str]:
        body = json.dumps([{"name": rig.event("plain"), "data": {"n": n}} for n in range(2)]).encode()
        headers = {"content-type": "application/json", "x-inngest-event-id-seed": seed}
        with urllib.request.urlopen(urllib.request.Request(f"{rig.server.url}/e/{EVENT_KEY}", body, headers)) as response:
            ids: list[str] = json.load(response)["ids"]
            return ids

    first = send()
    assert send() == first and len(set(first)) == 2
    for event_id in first:
        assert rig.ended(rig.server.run_of(event_id)).status == "completed"
        assert len(rig.runs_of(event_id)) == 1
    assert rig.notes.count("plain") == 2
    listed = [event["internal_id"] for event in rig.server.ask("/v1/events?limit=50")["data"]]
    assert [listed.count(event_id) for event_id in first] == [2, 2], "each receipt stands for itself (§11.6)"


@pytest.mark.capability("event-many")
def test_many_events_come_in_one_request(rig: Rig) -> None:
    """Thousands of small ones, and some of a megabyte each; one more than may be is refused, and none of them taken."""
    send = f"/e/{EVENT_KEY}"
    small = [{"name": "compat/small", "data": {"n": n}} for n in range(5000)]
    ids = rig.server.ask(send, small)["ids"]
    assert len(set(ids)) == 5000
    assert rig.server.ask(f"/v1/events/{ids[-1]}")["data"]["data"] == {"n": 4999}
    large = [{"name": "compat/large", "data": {"text": "x" * 1024 * 1024}} for _ in range(8)]
    assert len(rig.server.ask(send, large)["ids"]) == 8
    status, answer = refused(rig.server.url + send, [*small, small[0]])
    assert status == 400 and "5000" in answer["error"] and not answer.get("ids")


@pytest.mark.capability("event-many")
def test_events_before_a_bad_one_are_taken(rig: Rig) -> None:
    """The answer has their ids and what is wrong with the next."""
    good = {"name": rig.event("plain"), "data": {}}
    status, answer = refused(f"{rig.server.url}/e/{EVENT_KEY}", [good, good, {"name": ""}, good])
    assert status == 400 and answer["error"] and len(answer["ids"]) == 2
    for event_id in answer["ids"]:
        assert rig.ended(rig.server.run_of(event_id)).status == "completed"


@pytest.mark.capability("event-refused")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": "", "data": {}}, "name"),
        ({"name": "inngest/function.failed", "data": {}}, "inngest/"),
        ({"name": "INNGEST/mine", "data": {}}, "nngest/"),
        ({"name": "n" * 600, "data": {}}, "name"),
        ({"name": "compat/x", "data": [1]}, "data"),
        ({"name": "compat/x", "data": {}, "ts": 5}, "ts"),
        ({"name": "compat/x", "data": {"text": "x" * (3 * 1024 * 1024 + 1)}}, "bytes"),
        (b'{"name": "compat/x"', ""),
        (b"name=compat/x&data=1", ""),
    ],
    ids=["no name", "reserved", "reserved in capitals", "long name", "data is a list", "time of 1970", "too large", "no JSON", "a form"],
)
def test_events_that_are_refused(rig: Rig, body: Any, said: str) -> None:
    """With 400, and a sentence about what is wrong."""
    status, answer = refused(f"{rig.server.url}/e/{EVENT_KEY}", body)
    assert status == 400 and answer["status"] == 400 and said in answer["error"], answer


@pytest.mark.capability("send-outside")
def test_events_are_sent_outside_of_a_step(rig: Rig) -> None:
    """What the server refuses is the sender's error, in the server's words."""
    event = {"name": rig.event("sent-many"), "data": {"n": 1}}
    assert rig.run("sends-outside", {"events": [event, event]}).output == 2
    refused = rig.run("sends-outside", {"events": [{**event, "name": "inngest/mine"}]}).output
    assert refused.startswith("refused: ") and "inngest/" in refused
