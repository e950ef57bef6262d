"""What people do with queues: look at them, hold them, empty them, and look after dead letters."""

from __future__ import annotations

import asyncio

import httpx

from stepwell.protocol.codec import canonical
from stepwell.protocol.queues import Outcome
from stepwell.server.auth import Keys
from tests.unit.server.queues import Rig, with_queues

QUICK = {"maxBatchTimeout": "0s"}
DEADLY = {**QUICK, "maxRetries": 0, "deadLetter": "jobs-dead"}
ERROR = {"name": "ValueError", "message": "no such report"}


async def die(rig: Rig, *bodies: object) -> list[str]:
    """Messages of `jobs` that are dead letters in `jobs-dead` when this returns."""
    rig.outcome = lambda events: Outcome(error=canonical(ERROR))
    await rig.sync(consumer=DEADLY)
    ids = await rig.send("jobs", *bodies)
    await rig.waiting("jobs-dead", len(bodies))
    return ids


def test_queues_are_listed_by_name_with_who_consumes_them() -> None:
    """A page at a time: a consumer with its settings, a function that starts runs, a queue that nobody has."""

    async def work(rig: Rig) -> None:
        await rig.sync("jobs", consumer={"maxBatchSize": 7, "retryDelay": "5s"})
        await rig.sync("orders")
        await rig.send("alone", {"n": 1})
        first = await rig.ask("GET", "/api/queues?limit=2")
        assert [queue["name"] for queue in first["queues"]] == ["alone", "jobs"] and first["cursor"] == "jobs"
        second = await rig.ask("GET", "/api/queues?cursor=jobs")
        assert [queue["name"] for queue in second["queues"]] == ["orders"] and second["cursor"] is None
        alone, jobs = first["queues"]
        assert (alone["waiting"], alone["waiting_bytes"], alone["consumer"], alone["paused"]) == (1, 7, None, False)
        assert (alone["retention"], alone["visibility"], alone["max_retries"], alone["dead_letter"]) == ("4d", "30s", 3, "")
        consumer = {
            "function": "a-jobs",
            "app": "a-jobs",
            "paused": False,
            "kind": "batches",
            "max_batch_size": 7,
            "max_batch_timeout": "5s",
        }
        assert jobs["consumer"] == {**consumer, "max_retries": 3, "retry_delay": "5s", "max_concurrency": 250, "dead_letter": ""}
        assert second["queues"][0]["consumer"] == {"function": "a-orders", "app": "a-orders", "paused": False, "kind": "runs"}

    with_queues(work)


def test_a_batch_that_is_out_is_shown() -> None:
    """With its function and messages, until the consumer answers; a message of it is shown as out."""

    async def work(rig: Rig) -> None:
        rig.gate = asyncio.Event()
        await rig.sync(consumer=QUICK)
        (sent,) = await rig.send("jobs", "x")
        shown = await rig.until(lambda: out(rig), "a batch is out")
        assert (shown["waiting"], shown["deliveries_out"], shown["messages_out"]) == (0, 1, 1)
        (delivery,) = shown["deliveries"]
        assert (delivery["function"], delivery["messages"], delivery["holder"]) == ("a-jobs", [sent], rig.node.holder)
        message = await rig.ask("GET", f"/api/queues/jobs/messages/{sent}")
        assert (message["out"], message["attempts"], message["body"]) == (delivery["id"], 1, "x")
        refused = await rig.ask("PUT", f"/api/queues/jobs/messages/{sent}", {"body": "y"}, 409)
        assert "out with a consumer" in refused["error"]
        assert (await rig.ask("POST", "/api/queues/jobs/messages/delete", {"ids": [sent]}))["deleted"] == 0
        rig.gate.set()
        await rig.waiting("jobs", 0)

    async def out(rig: Rig) -> dict[str, object] | None:
        shown: dict[str, object] = await rig.ask("GET", "/api/queues/jobs")
        return shown if shown["deliveries"] else None

    with_queues(work)


def test_a_paused_queue_delivers_nothing_until_it_is_resumed() -> None:
    """To its consumer, and to those who pull; what is sent meanwhile waits."""

    async def work(rig: Rig) -> None:
        await rig.sync(consumer=QUICK)
        assert (await rig.ask("POST", "/api/queues/jobs/pause"))["paused"] is True
        await rig.send("jobs", 1, 2)
        assert rig.batches == [] and (await rig.ask("GET", "/api/queues/jobs"))["waiting"] == 2
        assert (await rig.ask("POST", "/api/queues/jobs/resume"))["paused"] is False
        await rig.waiting("jobs", 0)
        assert sorted(event["data"]["body"] for batch in rig.batches for event in batch) == [1, 2]
        assert (await rig.ask("POST", "/api/queues/nobody/pause", status=404))["error"].startswith("there is no queue 'nobody'")

    with_queues(work)


def test_a_purge_takes_what_waits_and_nothing_that_is_sent_after_it() -> None:
    """Whether it is ready or delayed; the answer tells how many waited."""

    async def work(rig: Rig) -> None:
        await rig.send("jobs", *range(3))
        await rig.send("jobs", "later", delay="1h")
        assert await rig.ask("POST", "/api/queues/jobs/purge") == {"purged": 4}
        await rig.send("jobs", "after")
        await rig.waiting("jobs", 1)
        assert await rig.bodies("jobs") == ["after"]

    with_queues(work)


def test_settings_are_those_of_pull_consumers_and_of_keeping() -> None:
    """What is told is set and shown, what is not stays; what an app tells is refused, as is what makes no sense."""

    async def work(rig: Rig) -> None:
        path = "/api/queues/jobs/settings"
        told = {"retention": "2d", "visibility": "1m30s", "max_retries": 5, "dead_letter": "jobs-dead"}
        shown = await rig.ask("POST", path, told)
        assert {name: shown[name] for name in told} == told
        shown = await rig.ask("POST", path, {"dead_letter": "", "visibility": "0"})
        assert {name: shown[name] for name in told} == {**told, "dead_letter": "", "visibility": "0s"}
        for body, said in (
            ({}, "nothing set"),
            ({"retries": 3}, "'retries'"),
            ({"retention": "59s"}, "'59s'"),
            ({"retention": "15d"}, "'15d'"),
            ({"visibility": "13h"}, "'13h'"),
            ({"retention": "soon"}, "'soon'"),
            ({"max_retries": 101}, "101"),
            ({"max_retries": True}, "True"),
            ({"dead_letter": "jobs"}, "cannot be itself"),
            ({"dead_letter": "a/b"}, "'a/b'"),
        ):
            assert said in (await rig.ask("POST", path, body, 400))["error"]
        await rig.sync(consumer=QUICK)
        assert "'a-jobs'" in (await rig.ask("POST", path, {"max_retries": 3}, 409))["error"]
        assert (await rig.ask("POST", path, {"retention": "1h"}))["retention"] == "1h"

    with_queues(work)


def test_a_message_is_sent_by_hand_and_shown_decoded() -> None:
    """JSON as the value, a text as it is, bytes as base64; a delay keeps it back."""

    async def work(rig: Rig) -> None:
        (first,) = await rig.send("jobs", {"b": [1, None]})
        await rig.send("jobs", "a text", content_type="text")
        await rig.send("jobs", "AAE=", content_type="bytes", delay="10s")
        listed = (await rig.ask("GET", "/api/queues/jobs/messages"))["messages"]
        assert [(one["body"], one["content_type"], one["bytes"]) for one in listed] == [
            ({"b": [1, None]}, "json", 14),
            ("a text", "text", 6),
            ("AAE=", "bytes", 2),
        ]
        assert listed[2]["ready_ms"] - listed[2]["sent_ms"] == 10_000
        assert await rig.ask("GET", f"/api/queues/jobs/messages/{first}") == {**listed[0], "raw": '{"b":[1,null]}'}
        (large,) = await rig.send("large", 2**63 + 1)
        assert (await rig.ask("GET", f"/api/queues/large/messages/{large}"))["raw"] == str(2**63 + 1)
        missing = f"/api/queues/jobs/messages/{'0' * 32}"
        assert "consumed, deleted or moved" in (await rig.ask("GET", missing, status=404))["error"]
        assert (await rig.ask("GET", f"/api/queues/other/messages/{first}", status=404))["status"] == 404
        for body, said in (
            ({}, "needs a body"),
            ({"body": 1, "content_type": "xml"}, "'xml'"),
            ({"body": 1, "content_type": "text"}, "must be a string"),
            ({"body": "é", "content_type": "bytes"}, "base64"),
            ({"body": 1, "delay": "25h"}, "0 to 86400 s"),
            ({"body": 1, "delay": 5}, "'5'"),
        ):
            assert said in (await rig.ask("POST", "/api/queues/jobs/messages", body, 400))["error"]

    with_queues(work)


def test_messages_are_listed_a_page_at_a_time_and_by_a_condition() -> None:
    """Every message once, whatever the page's size; a condition sees body, attempts, error and where it comes from."""

    async def work(rig: Rig) -> None:
        await rig.send("jobs", *({"n": n} for n in range(25)))
        for where, expected in (("", range(25)), ("message.body.n % 2 == 0", range(0, 25, 2)), ("message.body.n > 99", ())):
            found: list[int] = []
            query: dict[str, str] = {"limit": "4", "where": where}
            while True:
                page = (await rig.client.get("/api/queues/jobs/messages", params=query)).json()
                found += [one["body"]["n"] for one in page["messages"]]
                if page["cursor"] is None:
                    break
                query["cursor"] = page["cursor"]
            assert sorted(found) == list(expected), where
        assert await rig.bodies("jobs", "message.attempts == 0 && message.body.n == 3 && message.dead_of == null") == [{"n": 3}]
        assert await rig.bodies("jobs", "message.body.no.such.field == 1") == []
        for where, said in (("message.", "where: "), ("event.data.n == 1", "'event'")):
            refused = await rig.client.get("/api/queues/jobs/messages", params={"where": where})
            assert refused.status_code == 400 and said in refused.json()["error"]
        assert "take it from the answer" in (await rig.ask("GET", "/api/queues/jobs/messages?cursor=3", status=400))["error"]

    with_queues(work)


def test_dead_letters_tell_what_they_died_of_and_are_sent_back() -> None:
    """One by its id; they are consumed then as new messages are."""

    async def work(rig: Rig) -> None:
        ids = await die(rig, {"report": 1}, {"report": 2})
        letters = (await rig.ask("GET", "/api/queues/jobs-dead/messages"))["messages"]
        assert {one["id"] for one in letters} == set(ids)
        assert {(one["dead_of"], one["error"]["message"], one["attempts"]) for one in letters} == {("jobs", ERROR["message"], 0)}
        rig.outcome, rig.batches = (lambda events: Outcome()), []
        moved = await rig.ask("POST", "/api/queues/jobs-dead/messages/move", {"ids": [ids[0]]})
        assert moved == {"moved": 1, "looked": 1, "cursor": None}
        await rig.waiting("jobs", 0)
        await rig.waiting("jobs-dead", 1)
        assert [[event["id"] for event in batch] for batch in rig.batches] == [[ids[0]]]
        again = await rig.ask("POST", "/api/queues/jobs-dead/messages/move", {"ids": [ids[0]]})
        assert again["moved"] == 0, "it is not there any more"

    with_queues(work)


def test_dead_letters_are_sent_elsewhere_edited_and_deleted() -> None:
    """To the queue that is named; with another body under another id; away."""

    async def work(rig: Rig) -> None:
        first, second, third = await die(rig, 1, 2, 3)
        assert (await rig.ask("POST", "/api/queues/jobs-dead/messages/move", {"ids": [first], "to": "slow"}))["moved"] == 1
        assert await rig.bodies("slow") == [1]
        edited = (await rig.ask("PUT", f"/api/queues/jobs-dead/messages/{second}", {"body": {"n": 2}}))["id"]
        shown = await rig.ask("GET", f"/api/queues/jobs-dead/messages/{edited}")
        assert edited != second and (shown["body"], shown["dead_of"], shown["error"]["name"]) == ({"n": 2}, "jobs", "ValueError")
        await rig.ask("GET", f"/api/queues/jobs-dead/messages/{second}", status=404)
        assert (await rig.ask("POST", "/api/queues/jobs-dead/messages/delete", {"ids": [third, second]}))["deleted"] == 1
        assert await rig.bodies("jobs-dead") == [{"n": 2}]
        path = f"/api/queues/jobs-dead/messages/{edited}"
        assert "at most 128000" in (await rig.ask("PUT", path, {"body": "x" * 128_000}, 413))["error"]

    with_queues(work)


def test_a_condition_says_which_dead_letters_are_meant_however_many() -> None:
    """In steps of a bounded size, each of which tells how many and where to go on; letters of other queues and errors stay."""

    async def work(rig: Rig) -> None:
        await rig.send("jobs-dead", *range(5))
        rig.outcome = lambda events: Outcome(error=canonical(ERROR if events[0]["data"]["body"]["n"] % 2 else {"message": "busy"}))
        await rig.sync(consumer={**DEADLY, "maxBatchSize": 1})
        for start in range(0, 2100, 100):
            messages = [{"body": {"n": n}} for n in range(start, start + 100)]
            await rig.ask("POST", "/queues/jobs/messages", {"messages": messages})
        await rig.waiting("jobs-dead", 2105)
        await rig.ask("POST", "/api/queues/jobs/pause")
        body = {"where": "message.dead_of == 'jobs' && message.error.message.contains('report') && message.body.n < 1000"}
        looked, moved, cursor, requests = 0, 0, None, 0
        while requests == 0 or cursor is not None:
            told = {**body, **({"cursor": cursor} if cursor else {})}
            answer = await rig.ask("POST", "/api/queues/jobs-dead/messages/move", told)
            looked, moved, cursor, requests = looked + answer["looked"], moved + answer["moved"], answer["cursor"], requests + 1
            assert answer["looked"] <= 1000
        assert (looked, moved, requests) == (2105, 500, 3)
        assert (await rig.ask("GET", "/api/queues/jobs"))["waiting"] == 500
        deleted = await rig.ask("POST", "/api/queues/jobs/messages/delete", {"where": "true"})
        assert (deleted["deleted"], deleted["cursor"]) == (500, None)
        rest = await rig.ask("POST", "/api/queues/jobs-dead/messages/move", {"where": "message.dead_of == null"})
        assert rest["moved"] == 0, "what is no dead letter has nowhere to go back to"

    with_queues(work)


def test_what_is_meant_has_to_be_told() -> None:
    """Neither nothing, nor both, nor the same queue."""

    async def work(rig: Rig) -> None:
        (sent,) = await rig.send("jobs", 1)
        for body, said in (
            ({}, "either ids or where"),
            ({"ids": [sent], "where": "true"}, "either ids or where"),
            ({"ids": []}, "from 1 to 100"),
            ({"ids": [sent] * 101}, "from 1 to 100"),
            ({"ids": "all"}, "array"),
            ({"ids": ["x"]}, "32 hex digits"),
            ({"where": ""}, "expression like"),
            ({"where": "true", "cursor": 3}, "cursor is 3"),
            ({"where": "true", "to": "jobs"}, "already"),
            ({"where": "true", "to": "a b"}, "'a b'"),
        ):
            assert said in (await rig.ask("POST", "/api/queues/jobs/messages/move", body, 400))["error"]
        assert await rig.bodies("jobs") == [1]

    with_queues(work)


def test_a_queue_that_is_not_there_is_told_and_one_of_dead_letters_is_there() -> None:
    """Whatever is asked of it: a misspelt name is no empty queue. Where a consumer's dead letters will go, none may be yet."""

    async def work(rig: Rig) -> None:
        await rig.sync(consumer=DEADLY)
        asks = [("GET", "", None), ("GET", "/messages", None), ("POST", "/purge", None)]
        asks += [("POST", f"/messages/{what}", {"where": "true"}) for what in ("move", "delete")]
        for method, path, body in asks:
            assert "there is no queue 'jbos'" in (await rig.ask(method, f"/api/queues/jbos{path}", body, 404))["error"]
            await rig.ask(method, f"/api/queues/jobs-dead{path}", body)

    with_queues(work)


def test_the_admin_token_is_asked_for() -> None:
    """On a server with keys, by every route."""
    keys = Keys(event_keys=("e",), signing_key="signkey-test-00ff", admin_token="a")

    async def work(rig: Rig) -> None:
        paths = [
            ("GET", "/api/queues"),
            ("GET", "/api/queues/q"),
            ("GET", "/api/queues/q/messages"),
            ("GET", f"/api/queues/q/messages/{1:032x}"),
        ]
        paths += [("POST", f"/api/queues/q/{what}") for what in ("pause", "resume", "purge", "settings", "messages")]
        paths += [("POST", f"/api/queues/q/messages/{what}") for what in ("move", "delete")] + [("PUT", f"/api/queues/q/messages/{1:032x}")]
        for method, path in paths:
            refused: httpx.Response = await rig.client.request(method, path, json={}, headers={"authorization": "Bearer e"})
            assert refused.status_code == 401, path
        assert (await rig.ask("GET", "/api/queues", authorization="Bearer a"))["queues"] == []

    with_queues(work, keys, "cloud")
