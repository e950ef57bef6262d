"""`POST /e/{key}` through the whole application: every form of the body, every error, what is stored and what is started (§2)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from stepwell.protocol.events import EVENT_BYTES_MAX, EVENTS_PER_REQUEST_MAX
from stepwell.protocol.ids import is_ulid, seeded_ulid
from stepwell.server.auth import Keys
from tests.unit.server.house import House, within

SEED = "1735689600000," + base64.b64encode(bytes(range(10))).decode()


def refused(body: Any, error: str, *, ids: int = 0, **headers: str) -> None:
    """The request is answered with 400, the error, and the ids of what came before."""

    async def test(house: House) -> None:
        answer = await house.post(body, **headers)
        told = answer.json()
        assert (answer.status_code, told["status"], len(told["ids"])) == (400, 400, ids)
        assert error in told["error"], told
        assert len(await house.stored()) == ids

    within(test)


def test_an_event() -> None:
    """Stored when it is answered; the answer has ids and status, and no error, not even a null one."""

    async def test(house: House) -> None:
        answer = await house.post({"name": "shop/paid", "data": {"a": 1}, "id": "o-1", "v": "2", "user": {"u": 1}}, key="NO_EVENT_KEY_SET")
        told = answer.json()
        assert (answer.status_code, told.keys(), told["status"]) == (200, {"ids", "status"}, 200)
        (event_id,) = told["ids"]
        (row,) = await house.stored()
        assert is_ulid(event_id) and (row.id, row.key, row.data, row.v, row.user) == (event_id, "o-1", b'{"a":1}', "2", b'{"u":1}')
        assert await house.runs(event_id) == 1
        assert answer.headers["x-inngest-server-kind"] == "dev" and answer.headers["access-control-allow-origin"] == "*"

    within(test)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_the_first_letter_tells_what_it_is(content_type: str) -> None:
    """Not the content type: pages send JSON as text."""

    async def test(house: House) -> None:
        assert (await house.post(b' \n[{"name":"a"},{"name":"b"}]', content_type=content_type)).status_code == 200
        assert [row.name for row in await house.stored()] == ["a", "b"]

    within(test)


FORM = b"name=shop%2Fpaid&data=1"
MULTIPART = b'--x\r\ncontent-disposition: form-data; name="name"\r\n\r\nshop/paid\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(FORM, "application/x-www-form-urlencoded"), (MULTIPART, "multipart/form-data; boundary=x"), (FORM, "application/json")],
)
def test_forms_are_no_events(body: bytes, content_type: str) -> None:
    """400, as tests of SDKs expect."""
    refused(body, "no event", content_type=content_type)


@pytest.mark.parametrize("body", [b"", b"  ", b"[]"])
def test_nothing_is_taken_for_nothing(body: bytes) -> None:
    """200 with no ids."""

    async def test(house: House) -> None:
        answer = await house.post(body)
        assert (answer.status_code, answer.json()) == (200, {"ids": [], "status": 200})

    within(test)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "valid JSON"),
        (b"[", "valid JSON"),
        (b'"text"', "no event"),
        (b"[1]", "no object"),
        ({"data": {}}, "event name is empty"),
        ({"name": ""}, "event name is empty"),
        ({"name": "inngest/function.finished"}, "reserved"),
        ({"name": "InnGest/x"}, "reserved"),
        ({"name": "a" * 513}, "longer than 512 bytes"),
        ({"name": "a", "data": []}, "event data must be an object"),
        ({"name": "a", "user": "me"}, "event user must be an object"),
        ({"name": "a", "id": 1}, "event id must be a string"),
        ({"name": "a", "ts": "now"}, "event ts must be a whole number"),
        ({"name": "a", "ts": 1_735_689_600}, "between 1980-01-01 and 2100-01-01"),
        ({"name": "a", "ts": 4_102_444_800_001}, "between 1980-01-01 and 2100-01-01"),
        ({"name": "a", "meta": {"sessions": {str(n): "s" for n in range(6)}}}, "at most 5"),
        ([{"name": "a"}] * (EVENTS_PER_REQUEST_MAX + 1), "at most 5000"),
    ],
)
def test_what_is_wrong_is_said(body: Any, error: str) -> None:
    """With 400, and nothing is stored."""
    refused(body, error)


def test_an_event_that_is_too_large() -> None:
    """One byte more than may be; an operator may say that less may be."""
    room = EVENT_BYTES_MAX - len(json.dumps({"name": "a", "data": {"x": ""}}))
    refused({"name": "a", "data": {"x": "y" * (room + 1)}}, f"at most {EVENT_BYTES_MAX}")

    async def largest(house: House) -> None:
        assert (await house.post({"name": "a", "data": {"x": "y" * room}})).status_code == 200

    async def less(house: House) -> None:
        answer = await house.post({"name": "a", "data": {"x": "y" * 2000}})
        assert answer.status_code == 400 and "at most 1024" in answer.json()["error"]

    within(largest)
    within(less, event_bytes_max=1024)


def test_events_before_the_first_bad_one_are_taken() -> None:
    """Their ids come with the error, which says which one it was (§2.1)."""
    refused([{"name": "a"}, {"name": "b"}, {"name": ""}, {"name": "c"}], "event name is empty (event 3 of 4)", ids=2)


def test_large_arrays() -> None:
    """Eight events of a mebibyte, and five thousand small ones, each in one request."""

    async def test(house: House) -> None:
        answer = await house.post([{"name": "big", "data": {"n": n, "x": "y" * 1024 * 1024}} for n in range(8)])
        assert (answer.status_code, len(answer.json()["ids"])) == (200, 8)
        answer = await house.post([{"name": "small"}] * EVENTS_PER_REQUEST_MAX)
        assert len(set(answer.json()["ids"])) == EVENTS_PER_REQUEST_MAX

    within(test)


def test_a_body_without_end_is_cut_off() -> None:
    """413, here as on every other route."""

    async def test(house: House) -> None:
        async def parts() -> Any:
            for _ in range(66):
                yield b" " * 1024 * 1024

        for path in ("/e/x", "/fn/register", "/v1/signals"):
            answer = await house.client.post(path, content=parts())
            assert answer.status_code == 413 and answer.json()["status"] == 413, path

    within(test)


def test_a_repeated_send_is_the_same_send() -> None:
    """With a seed the ids are always the same, and nothing starts twice; without one, or with a broken one, they are fresh (§2.4)."""

    async def test(house: House) -> None:
        body = [{"name": "shop/paid"}, {"name": "shop/paid"}]
        first, second = [(await house.post(body, x_inngest_event_id_seed=SEED)).json()["ids"] for _ in range(2)]
        assert first == second == [seeded_ulid(SEED, 1), seeded_ulid(SEED, 2)]
        assert len(await house.stored()) == 2 and [await house.runs(event_id) for event_id in first] == [1, 1]
        assert [row.receipts for row in await house.stored()] == [2, 2]
        broken = [(await house.post(body, x_inngest_event_id_seed="1,x")).json()["ids"] for _ in range(2)]
        assert len({*broken[0], *broken[1]}) == 4

    within(test)


def test_the_same_id_starts_a_function_once() -> None:
    """The second event is stored and answered with its own internal id, and starts nothing (§2.3)."""

    async def test(house: House) -> None:
        ids = [(await house.post({"name": "shop/paid", "id": "o-1"})).json()["ids"][0] for _ in range(2)]
        assert len(set(ids)) == 2 and len(await house.stored()) == 2
        assert [await house.runs(event_id) for event_id in ids] == [1, 0]

    within(test)


def test_a_time_to_come_delays_the_run() -> None:
    """The run is there at once, queued, and its first call goes out when the time has come (§2.1)."""

    async def test(house: House) -> None:
        due_ms = house.node.clock.now_ms() + 3_600_000
        (event_id,) = (await house.post({"name": "shop/paid", "ts": due_ms})).json()["ids"]
        (run,) = await house.node.reader.runs_of_event(event_id, 10)
        assert run.status == "queued" and not await house.node.reader.items_of(run.id)
        (timer,) = await house.node.reader.timers_of(run.id)
        assert timer.due_ms == due_ms
        (event_id,) = (await house.post({"name": "shop/paid", "ts": due_ms - 7_200_000})).json()["ids"]
        (run,) = await house.node.reader.runs_of_event(event_id, 10)
        assert await house.node.reader.items_of(run.id) and not await house.node.reader.timers_of(run.id)

    within(test)


def test_the_server_s_own_key_is_not_the_user_s() -> None:
    """`_inngest` is taken out of the data; sessions are merged, and what was inherited is not kept apart (§2.1)."""

    async def test(house: House) -> None:
        meta = {"sessions": {"a": "1", "b": None}, "propagated_sessions": {"a": "0", "b": "2", "c": "3"}}
        await house.post({"name": "a", "data": {"_inngest": {"fn_id": "x"}, "kept": 1}, "meta": meta})
        (row,) = await house.stored()
        assert (row.data, json.loads(row.meta)) == (b'{"kept":1}', {"sessions": {"a": "1", "c": "3"}})

    within(test)


def test_event_keys() -> None:
    """Several hold; another one is answered in the protocol's words. A server with no key at all takes no events (§2.1)."""

    async def test(house: House) -> None:
        for key, status in (("one", 200), ("two", 200), ("on", 401), ("onee", 401), ("", 401), ("schlüssel", 401)):
            assert (await house.post({"name": "a"}, key=key)).status_code == status, key
        assert (await house.post({"name": "a"}, key="x")).json()["error"] == "Event key not found"

    async def closed(house: House) -> None:
        answer = await house.post({"name": "a"})
        assert (answer.status_code, answer.headers["x-inngest-server-kind"]) == (503, "cloud") and "no event keys" in answer.json()["error"]

    within(test, keys=Keys(event_keys=("one", "two"), signing_key="ab"), kind="cloud")
    within(closed, keys=Keys(signing_key="ab"), kind="cloud")


def test_pages_may_send() -> None:
    """A browser that asks first is told yes, with the headers that it asks for; every answer names the server's kind."""

    async def test(house: House) -> None:
        asked = {
            "origin": "https://shop.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-inngest-sdk",
        }
        answer = await house.client.options("/e/x", headers=asked)
        assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == "*"
        assert "x-inngest-sdk" in answer.headers["access-control-allow-headers"] and answer.headers["x-inngest-server-kind"] == "dev"

    within(test)
