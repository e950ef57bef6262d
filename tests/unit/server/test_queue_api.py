"""Publishing and pulling over HTTP, in the shapes of Cloudflare's API."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from stepwell.protocol.signatures import bearer_hash
from stepwell.server.auth import Keys
from tests.unit.server.queues import Rig, with_queues

BASES = ("/accounts/023e105f/queues", "/client/v4/accounts/023e105f/queues")
BASE = BASES[0]
KEY = "signkey-test-00ff"
KEYS = Keys(event_keys=("events",), signing_key=KEY, admin_token="admin")


async def result(rig: Rig, path: str, body: Any, **headers: str) -> Any:
    """The result of a request that succeeds."""
    told = await rig.ask("POST", path, body, **headers)
    assert told == {"success": True, "errors": [], "messages": [], "result": told["result"]}
    return told["result"]


async def refusal(rig: Rig, path: str, body: Any, status: int, **headers: str) -> str:
    """The message of a request that is refused, in the envelope."""
    told = await rig.ask("POST", path, body, status, **headers)
    (error,) = told["errors"]
    assert told == {"success": False, "errors": [{"code": status, "message": error["message"]}], "messages": [], "result": None}
    message: str = error["message"]
    return message


def decoded(message: dict[str, Any]) -> str:
    """A body that travelled as base64 text."""
    return base64.b64decode(message["body"]).decode()


@pytest.mark.parametrize("base", BASES)
def test_what_is_published_is_pulled_and_acked(base: str) -> None:
    """By both paths, under any account's name: exactly the documented shapes."""

    async def work(rig: Rig) -> None:
        assert await result(rig, f"{base}/jobs/messages", {"body": {"n": 1}}) is None
        assert await result(rig, f"{base}/jobs/messages", {"body": "a text", "content_type": "text", "delay_seconds": 0}) is None
        assert await result(rig, f"{base}/jobs/messages", {"body": "AAE=", "content_type": "bytes"}) is None
        pulled = await result(rig, f"{base}/jobs/messages/pull", {"batch_size": 2, "visibility_timeout_ms": 5000})
        assert pulled["message_backlog_count"] == 3, "those that are not acked"
        rest = await result(rig, f"{base}/jobs/messages/pull", {})
        assert rest["message_backlog_count"] == 3
        messages = {one["metadata"]["CF-Content-Type"]: one for one in pulled["messages"] + rest["messages"]}
        for message in messages.values():
            assert set(message) == {"id", "timestamp_ms", "body", "attempts", "lease_id", "metadata"}
            assert message["attempts"] == 1 and len(message["id"]) == 32
            assert abs(message["timestamp_ms"] - rig.clock.now_ms()) < 10_000
        assert decoded(messages["json"]) == '{"n":1}'
        assert messages["text"]["body"] == "a text"
        assert base64.b64decode(messages["bytes"]["body"]) == b"\x00\x01"
        leases = [{"lease_id": message["lease_id"]} for message in messages.values()]
        settled = await result(rig, f"{base}/jobs/messages/ack", {"acks": leases[:2], "retries": [leases[2]]})
        assert settled == {"ackCount": 2, "retryCount": 1, "warnings": []}
        (again,) = (await result(rig, f"{base}/jobs/messages/pull", None))["messages"]
        assert (again["attempts"], again["lease_id"] != leases[2]["lease_id"]) == (2, True)

    with_queues(work)


def test_delays_are_the_messages_own_else_the_calls() -> None:
    """In a batch; an own delay of 0 counts. A retry has its own."""

    async def work(rig: Rig) -> None:
        messages = [{"body": "own", "delay_seconds": 60}, {"body": "now", "delay_seconds": 0}, {"body": "call's"}]
        assert await result(rig, f"{BASE}/jobs/messages/batch", {"messages": messages, "delay_seconds": 30}) is None
        path = f"{BASE}/jobs/messages/pull"
        for seconds, expected in ((0, '"now"'), (29, None), (31, '"call\'s"'), (59, None), (61, '"own"')):
            rig.clock.ahead_ms = seconds * 1000
            pulled = (await result(rig, path, {"visibility_timeout_ms": 3_600_000}))["messages"]
            assert [decoded(one) for one in pulled] == ([] if expected is None else [expected]), seconds
        lease = {"lease_id": pulled[0]["lease_id"]}
        await result(rig, f"{BASE}/jobs/messages/ack", {"retries": [{**lease, "delay_seconds": 10}]})
        assert (await result(rig, path, {}))["messages"] == []
        rig.clock.ahead_ms += 11_000
        assert [one["attempts"] for one in (await result(rig, path, {}))["messages"]] == [2]

    with_queues(work)


def test_what_is_not_acked_in_time_is_delivered_again() -> None:
    """And its lease is over then: it changes nothing, and is named. Twice the same lease is once too often."""

    async def work(rig: Rig) -> None:
        await result(rig, f"{BASE}/jobs/messages", {"body": 1})
        pull, ack = f"{BASE}/jobs/messages/pull", f"{BASE}/jobs/messages/ack"
        (first,) = (await result(rig, pull, {"visibility_timeout_ms": 1000}))["messages"]
        assert (await result(rig, pull, {}))["messages"] == []
        rig.clock.ahead_ms += 1001
        (second,) = (await result(rig, pull, {}))["messages"]
        assert (second["id"], second["attempts"]) == (first["id"], 2)
        stale = await result(rig, ack, {"acks": [{"lease_id": first["lease_id"]}]})
        assert (stale["ackCount"], stale["retryCount"]) == (0, 0)
        assert len(stale["warnings"]) == 1 and first["lease_id"] in stale["warnings"][0]
        lease = {"lease_id": second["lease_id"]}
        told = await result(rig, ack, {"acks": [lease], "retries": [lease]})
        assert (told["ackCount"], told["retryCount"], len(told["warnings"])) == (1, 0, 1)
        nobody = await result(rig, f"{BASE}/nobody/messages/ack", {"acks": [lease]})
        assert (nobody["ackCount"], len(nobody["warnings"])) == (0, 1)

    with_queues(work)


def test_a_pulled_message_becomes_a_dead_letter_after_its_retries() -> None:
    """As the queue's settings say; without a dead-letter queue it is gone."""

    async def work(rig: Rig) -> None:
        await rig.ask("POST", "/api/queues/jobs/settings", {"max_retries": 1, "dead_letter": "jobs-dead"})
        await rig.ask("POST", "/api/queues/other/settings", {"max_retries": 0})
        for queue, tries in (("jobs", 2), ("other", 1)):
            await result(rig, f"{BASE}/{queue}/messages", {"body": queue})
            for _ in range(tries):
                (one,) = (await result(rig, f"{BASE}/{queue}/messages/pull", {}))["messages"]
                await result(rig, f"{BASE}/{queue}/messages/ack", {"retries": [{"lease_id": one["lease_id"]}]})
            await rig.waiting(queue, 0)
        (letter,) = (await rig.ask("GET", "/api/queues/jobs-dead/messages"))["messages"]
        assert (letter["body"], letter["dead_of"], letter["attempts"]) == ("jobs", "jobs", 0)

    with_queues(work)


def test_a_queue_that_an_app_consumes_is_not_pulled() -> None:
    """A conflict that names the function; to publish to it is as ever."""

    async def work(rig: Rig) -> None:
        await rig.sync(consumer={"maxBatchTimeout": "0s"})
        assert "'a-jobs'" in await refusal(rig, f"{BASE}/jobs/messages/pull", {}, 409)
        await result(rig, f"{BASE}/jobs/messages", {"body": [1]})
        await rig.until(lambda: consumed(rig), "the batch is delivered")
        ((event,),) = rig.batches
        assert (event["name"], event["data"]["body"], event["data"]["content_type"]) == ("stepwell/queue.jobs", [1], "json")

    async def consumed(rig: Rig) -> bool:
        return bool(rig.batches)

    with_queues(work)


def test_limits_and_mistakes_are_told_in_the_envelope_and_nothing_is_stored() -> None:
    """Each names the value and what it may be."""

    async def work(rig: Rig) -> None:
        send, batch, pull, ack = (f"{BASE}/jobs/messages{path}" for path in ("", "/batch", "/pull", "/ack"))
        for path, body, status, said in (
            (send, {}, 400, "needs a body"),
            (send, [], 400, "JSON object"),
            (send, {"body": 1, "content_type": "v8"}, 400, "'v8'"),
            (send, {"body": 1, "content_type": "text"}, 400, "must be a string"),
            (send, {"body": "é", "content_type": "bytes"}, 400, "base64"),
            (send, {"body": "x" * 127_999}, 413, "128001 bytes; at most 128000"),
            (send, {"body": "x" * 128_001, "content_type": "text"}, 413, "at most 128000"),
            (send, {"body": 1, "delay_seconds": -1}, 400, "-1"),
            (send, {"body": 1, "delay_seconds": 86_401}, 400, "86401"),
            (send, {"body": 1, "delay_seconds": "5"}, 400, "'5'"),
            (batch, {"messages": []}, 400, "0 messages"),
            (batch, {"messages": [{"body": 1}] * 101}, 400, "101 messages"),
            (batch, {"messages": [{"body": "x" * 90_000}] * 3}, 413, "at most 256000"),
            (batch, {"messages": [{"body": 1}, {"body": "x" * 128_001}]}, 413, "at most 128000"),
            (batch, {"messages": {"body": 1}}, 400, "array"),
            (batch, {"messages": [1]}, 400, "array"),
            (batch, {"messages": [{"body": 1}], "delay_seconds": 86_401}, 400, "86401"),
            (pull, {"batch_size": 0}, 400, "0"),
            (pull, {"batch_size": 101}, 400, "101"),
            (pull, {"batch_size": "many"}, 400, "'many'"),
            (pull, {"visibility_timeout_ms": 43_200_001}, 400, "43200001"),
            (ack, {"acks": [{}]}, 400, "lease_id"),
            (ack, {"acks": ["x"]}, 400, "array"),
            (ack, {"retries": [{"lease_id": "x", "delay_seconds": 86_401}]}, 400, "86401"),
            (ack, {"acks": [{"lease_id": str(n)} for n in range(101)]}, 400, "101 leases"),
        ):
            assert said in await refusal(rig, path, body, status), (path, body)
        bad = await rig.client.post(send, content=b"{nonsense")
        assert bad.status_code == 400 and "no JSON" in bad.json()["errors"][0]["message"]
        assert "'a b'" in await refusal(rig, f"{BASE}/a%20b/messages", {"body": 1}, 400)
        assert (await rig.ask("GET", "/api/queues"))["queues"] == []
        await result(rig, send, {"body": "x" * 127_998})
        await result(rig, send, {"body": "x" * 128_000, "content_type": "text"})

    with_queues(work)


def test_an_event_key_publishes_and_the_signing_key_does_all() -> None:
    """As bearers; without one, or with a wrong one, the refusal is in the envelope too."""

    async def work(rig: Rig) -> None:
        send, batch, pull, ack = (f"{BASE}/jobs/messages{path}" for path in ("", "/batch", "/pull", "/ack"))
        bodies = {send: {"body": 1}, batch: {"messages": [{"body": 1}]}, pull: {}, ack: {}}
        signing = {"authorization": f"Bearer {bearer_hash(KEY)}"}
        for path, body in bodies.items():
            for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "events"}, {"authorization": "Bearer admin"}):
                await refusal(rig, path, body, 401, **wrong)
            if path in (send, batch):
                await result(rig, path, body, authorization="Bearer events")
            else:
                await refusal(rig, path, body, 401, authorization="Bearer events")
            await result(rig, path, body, **signing)
        sent = await rig.ask("POST", "/queues/jobs/messages", {"messages": [{"body": 1}]}, authorization="Bearer events")
        assert len(sent["ids"]) == 1
        await rig.ask("POST", "/queues/jobs/messages", {"messages": [{"body": 1}]}, 401)

    with_queues(work, KEYS, "cloud")


def test_what_our_sdk_sends_is_stored_once_whatever_is_repeated() -> None:
    """By the ids that it gives; the answer tells what waited before."""

    async def work(rig: Rig) -> None:
        first, second = "0" * 31 + "1", "0" * 31 + "2"
        messages = [{"body": {"n": 1}, "id": first}, {"body": "t", "content_type": "text", "delay_ms": 50, "id": second}]
        told = await rig.ask("POST", "/queues/jobs/messages", {"messages": messages})
        assert told == {"ids": [first, second], "backlog": {"messages": 0, "bytes": 0}}
        told = await rig.ask("POST", "/queues/jobs/messages", {"messages": messages})
        assert told == {"ids": [first, second], "backlog": {"messages": 2, "bytes": 8}}
        assert (await rig.ask("GET", "/api/queues/jobs"))["waiting"] == 2
        twice = await rig.ask("POST", "/queues/jobs/messages", {"messages": [{"body": 3, "id": "0" * 31 + "3"}] * 2}, 400)
        assert "is there twice" in twice["error"] and (await rig.ask("GET", "/api/queues/jobs"))["waiting"] == 2
        for message, said in (
            ({"body": 1, "id": "x"}, "32 hex digits"),
            ({"content_type": "json"}, "needs a body"),
            ({"body": 1, "delay_ms": 86_400_001}, "86400001"),
            ({"body": 1, "delay_ms": -1}, "-1"),
            ({"body": 1, "delay_ms": "soon"}, "must be like"),
        ):
            assert said in (await rig.ask("POST", "/queues/jobs/messages", {"messages": [message]}, 400))["error"]
        cut = await rig.client.post("/queues/jobs/messages", content=b'{"messages":[{"body":"\\ud83d","content_type":"text"}]}')
        assert cut.status_code == 400 and "must be like" in cut.json()["error"]

    with_queues(work)


@pytest.mark.parametrize("keys", [Keys(), KEYS])
def test_a_send_is_answered_alike_by_either_way(keys: Keys) -> None:
    """A request whose key will do takes no router: what is stored, refused and answered is the same, for any origin."""

    async def work(rig: Rig) -> None:
        shown = {"authorization": "Bearer events"} if keys.event_keys else {}
        path = "/queues/jobs/messages"
        answer = await rig.client.post(path, json={"messages": [{"body": 1}, {"body": "x", "content_type": "text"}]}, headers=shown)
        told = answer.json()
        assert answer.status_code == 200 and set(told) == {"ids", "backlog"} and len(told["ids"]) == 2
        assert answer.headers["access-control-allow-origin"] == "*" and answer.headers["content-type"] == "application/json"
        more = await rig.ask("POST", path, {"messages": [{"body": {}}]}, **shown)
        assert more["backlog"] == {"messages": 2, "bytes": 2}
        refused = await rig.client.post(path, content=b"[" * 5_000, headers=shown)
        assert refused.status_code == 400 and refused.json()["status"] == 400 and refused.json()["data"] is None
        assert (await rig.client.post("/queues/a b/messages", json={"messages": [{"body": 1}]}, headers=shown)).status_code == 400
        assert (await rig.client.post("/queues/a/b/messages", json={}, headers=shown)).status_code == 404
        assert (await rig.client.get(path, headers=shown)).status_code == 405
        if keys.event_keys:
            assert (await rig.client.post(path, json={"messages": [{"body": 1}]})).status_code == 401
            hashed = {"authorization": f"Bearer {bearer_hash(KEY)}"}
            assert (await rig.client.post(path, json={"messages": [{"body": 1}]}, headers=hashed)).status_code == 200

    with_queues(work, keys)
