"""Registrations: the whole of §3.4 is read, in the spelling of every SDK, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepwell.errors import ProtocolError
from stepwell.protocol.functions import (
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    RateLimit,
    Registration,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    config_from_json,
    config_json,
    encode_registration,
    parse_functions,
    parse_registration,
    registration,
)

from .messages import FUNCTIONS, shop

URL = "http://localhost:3000/api/inngest?fnId=shop-charge&stepId=step"


def step(**fields: Any) -> dict[str, Any]:
    return {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": URL}, **fields}}


def read(**fields: Any) -> FunctionConfig:
    told = {"id": "shop-charge", "name": "charge", "triggers": [{"event": "shop/paid"}], "steps": step(), **fields}
    (config,) = parse_functions(json.dumps([told]).encode())
    return config


def refused(**fields: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        read(**fields)
    assert caught.value.status == 400
    message = str(caught.value)
    assert message.startswith("function 'shop-charge': ")
    return message.removeprefix("function 'shop-charge': ")


def test_the_protocol_s_example() -> None:
    """§3.4."""
    told = {
        "id": "shop-charge",
        "name": "charge",
        "triggers": [{"event": "shop/paid", "expression": "event.data.amount > 10"}],
        "steps": step(retries={"attempts": 2}),
        "concurrency": [{"limit": 5, "key": "event.data.customer"}],
        "cancel": [{"event": "shop/refunded", "if": "event.data.id == async.data.id"}],
        "timeouts": {"start": "10s", "finish": "1m"},
        "checkpoint": {"batch_steps": 1, "max_runtime": "10s"},
    }
    assert parse_functions(json.dumps([told]).encode()) == (
        FunctionConfig(
            id="shop-charge",
            name="charge",
            triggers=(Trigger(event="shop/paid", expression="event.data.amount > 10"),),
            url=URL,
            retries=2,
            concurrency=(Concurrency(limit=5, key="event.data.customer"),),
            cancel=(Cancel(event="shop/refunded", where="event.data.id == async.data.id"),),
            timeouts=Timeouts(start_ms=10_000, finish_ms=60_000),
        ),
    )


def test_what_is_left_out_has_its_default() -> None:
    """Four retries, no settings."""
    assert read() == FunctionConfig(id="shop-charge", name="charge", triggers=(Trigger(event="shop/paid"),), url=URL, retries=4)


def test_nulls_and_zero_values_are_absent() -> None:
    """Python sends nulls where it does not strip them, Go settings that were never made."""
    nulls = dict.fromkeys(
        ("concurrency", "throttle", "ratelimit", "idempotency", "debounce", "batchevents", "priority", "cancel", "singleton")
    )
    zeros = {
        "throttle": {"limit": 0, "period": "", "burst": 0, "key": None},
        "rateLimit": {"limit": 0, "period": ""},
        "debounce": {"period": "", "key": ""},
        "batchEvents": {"maxSize": 0, "timeout": ""},
        "priority": {"run": ""},
        "singleton": {},
        "timeouts": {"start": "", "finish": None},
        "idempotency": "",
        "concurrency": [],
        "cancel": [],
    }
    assert read(**nulls) == read(**zeros) == read(unknown={"x": 1}) == read(timeouts={"start": "", "finish": ""}) == read()


def test_keys_are_matched_in_any_case() -> None:
    """At every level."""
    config = read(RateLimit={"Limit": 3, "PERIOD": "1h"}, batchevents={"maxsize": 5, "TIMEOUT": "5s"})
    assert config.rate_limit == RateLimit(limit=3, period_ms=3_600_000)
    assert config.batch == Batch(max_size=5, timeout_ms=5_000)


@pytest.mark.parametrize(
    ("fields", "retries"),
    [
        ({"steps": step(retries={"attempts": 0})}, 0),
        ({"steps": step(retries={"attempts": 20})}, 20),
        ({"steps": step(retries={"attempts": 99})}, 20),
        ({"steps": step(retries={"attempts": 3.0})}, 3),
        ({"steps": step(retries={"attempts": None}), "retries": 7}, 7),
        ({"steps": step(retries={}), "retries": {"attempts": 1}}, 1),
        ({"steps": step(retries={"attempts": 2}), "retries": 7}, 2),
        ({"retries": 0}, 0),
        ({"retries": None}, 4),
    ],
)
def test_retries(fields: dict[str, Any], retries: int) -> None:
    """Of the step, else of the function, else four; twenty at most."""
    assert read(**fields).retries == retries


@pytest.mark.parametrize(
    ("concurrency", "limits"),
    [
        (5, [Concurrency(limit=5)]),
        (0, [Concurrency(limit=0)]),
        ({"limit": 5}, [Concurrency(limit=5)]),
        ({"limit": 5, "scope": "account", "key": '"k"'}, [Concurrency(limit=5, scope="account", key='"k"')]),
        ([1, {"limit": 2, "key": "event.data.x", "scope": ""}], [Concurrency(limit=1), Concurrency(limit=2, key="event.data.x")]),
        ({"fn": [{"limit": 1}]}, [Concurrency(limit=1, per="run")]),
        ({"fn": {"limit": 1}, "step": 3}, [Concurrency(limit=1, per="run"), Concurrency(limit=3)]),
        ({"step": [{"limit": 1}, {"limit": 2}], "fn": [3]}, [Concurrency(limit=3, per="run"), Concurrency(limit=1), Concurrency(limit=2)]),
        ([], []),
        ({}, []),
        ([{"key": "event.data.x"}], [Concurrency(limit=0, key="event.data.x")]),
    ],
)
def test_concurrency(concurrency: Any, limits: list[Concurrency]) -> None:
    """A number, a limit, an array of both, or one for whole runs and one for calls."""
    assert read(concurrency=concurrency).concurrency == tuple(limits)


def test_throttle() -> None:
    """A limit of 0 counts as 1; burst is 0 where it is not told."""
    assert read(throttle={"limit": 0, "period": "1m", "burst": 1}).throttle == Throttle(limit=1, period_ms=60_000, burst=1)
    assert read(throttle={"limit": 9, "period": "1s", "key": "k"}).throttle == Throttle(limit=9, period_ms=1_000, key="k")


def test_other_settings() -> None:
    """Each with all it may say."""
    assert read(rateLimit={"limit": 1, "period": "24h", "key": "k"}).rate_limit == RateLimit(limit=1, period_ms=86_400_000, key="k")
    assert read(idempotency="event.data.id").idempotency == "event.data.id"
    assert read(debounce={"period": "7d", "key": "k", "timeout": "8d"}).debounce == Debounce(
        period_ms=604_800_000, key="k", timeout_ms=691_200_000
    )
    assert read(batchEvents={"maxSize": 100, "timeout": "1s", "key": "k", "if": "e"}).batch == Batch(
        max_size=100, timeout_ms=1_000, key="k", where="e"
    )
    assert read(priority={"run": "event.data.p"}).priority == "event.data.p"
    assert read(singleton={"mode": "cancel", "key": "k"}).singleton == Singleton(mode="cancel", key="k")
    assert read(timeouts={"finish": "0s"}).timeouts == Timeouts(finish_ms=0)
    rules = read(cancel=[{"event": "a", "timeout": "1h"}, {"event": "b", "timeout": "2030-01-01T00:00:00Z"}, {"event": "c", "timeout": ""}])
    assert rules.cancel == (Cancel(event="a", timeout="1h"), Cancel(event="b", timeout="2030-01-01T00:00:00Z"), Cancel(event="c"))


def test_triggers() -> None:
    """Events, patterns and cron lines; none at all for a function that is only invoked."""
    triggers = [
        {"event": "a", "expression": "event.data.x"},
        {"event": "a", "expression": None},
        {"event": "a/*"},
        {"event": "a/b.*"},
        {"cron": "TZ=Europe/Berlin 0 8 * * 1", "jitter": "30s"},
        {"cron": "* * * * *", "jitter": None, "catchup": "last"},
    ]
    assert read(triggers=triggers).triggers == (
        Trigger(event="a", expression="event.data.x"),
        Trigger(event="a"),
        Trigger(event="a/*"),
        Trigger(event="a/b.*"),
        Trigger(cron="TZ=Europe/Berlin 0 8 * * 1", jitter_ms=30_000),
        Trigger(cron="* * * * *", catchup="last"),
    )
    assert read(triggers=[]).triggers == read(triggers=None).triggers == ()


def test_a_function_without_a_url() -> None:
    """Is called another way: in process, or in a child."""
    assert read(steps=None).url == read(steps={}).url == ""
    ws = {"step": {"runtime": {"type": "ws", "url": "wss://connect?fnId=shop-charge&stepId=step"}}}
    assert read(steps=ws).url.startswith("wss://connect")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": None}, "name is empty"),
        ({"name": 1}, "name must be a string, not 1"),
        ({"name": "x" * 256}, "256 characters; at most 255"),
        ({"triggers": {}}, "triggers must be an array"),
        ({"triggers": [1]}, "triggers[] must be an object"),
        ({"triggers": [{}]}, "either an event or a cron"),
        ({"triggers": [{"event": "a", "cron": "* * * * *"}]}, "either an event or a cron"),
        ({"triggers": [{"event": "a" * 256}]}, "triggers[].event"),
        ({"triggers": [{"event": 5}]}, "triggers[].event must be a string"),
        ({"triggers": [{"cron": "x" * 256}]}, "triggers[].cron"),
        ({"triggers": [{"event": str(i)} for i in range(11)]}, "11 entries; at most 10"),
        ({"triggers": [{"event": "a"}, {"event": "a"}]}, "the trigger 'a' is there twice"),
        ({"triggers": [{"cron": "* * * * *"}, {"cron": "* * * * *", "jitter": "2s"}]}, "is there twice"),
        ({"triggers": [{"event": "*"}]}, "a * that is not at its end"),
        ({"triggers": [{"event": "a*"}]}, "a * that is not at its end"),
        ({"triggers": [{"event": "a/*/b"}]}, "a * that is not at its end"),
        ({"triggers": [{"event": "a", "expression": 1}]}, "triggers[].expression must be a string"),
        ({"triggers": [{"event": "a", "expression": "x" * 5000}]}, "at most 4096"),
        ({"triggers": [{"cron": "* * * *"}]}, "4 fields"),
        ({"triggers": [{"cron": "* * * * *", "jitter": "500ms"}]}, "triggers[].jitter is '500ms'; it must be at least 1s and at most 5m"),
        ({"triggers": [{"cron": "* * * * *", "jitter": "6m"}]}, "at most 5m"),
        ({"triggers": [{"cron": "* * * * *", "catchup": "some"}]}, "catchup 'some' is neither last nor all"),
        ({"steps": {"a": {}, "b": {}}}, "steps has 2 entries"),
        ({"steps": []}, "steps must be an object"),
        ({"steps": {"step": 1}}, "steps.step must be an object"),
        ({"steps": {"step": {"runtime": 1}}}, "steps.step.runtime must be an object"),
        ({"steps": {"step": {"runtime": {"type": "tcp"}}}}, "runtime.type 'tcp' is neither http nor ws"),
        ({"steps": {"step": {"runtime": {"url": "/api"}}}}, "must be absolute"),
        ({"steps": {"step": {"runtime": {"url": "ftp://x/y"}}}}, "must be absolute"),
        ({"steps": {"step": {"runtime": {"url": "http://[x"}}}}, "must be absolute"),
        ({"steps": step(retries={"attempts": -1})}, "steps.step.retries.attempts is -1"),
        ({"steps": step(retries={"attempts": "3"})}, "must be a whole number, not '3'"),
        ({"retries": True, "steps": step()}, "retries must be a whole number"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"concurrency": [1, 2, 3]}, "3 limits; at most 2"),
        ({"concurrency": {"fn": [1, 2]}}, "concurrency.fn has 2 limits"),
        ({"concurrency": -1}, "concurrency.limit is -1"),
        ({"concurrency": "5"}, "concurrency must be an object"),
        ({"concurrency": {"limit": 1, "scope": "world"}}, "scope 'world' is none of fn, env, account"),
        ({"concurrency": {"limit": 1, "scope": "env"}}, "scope 'env' needs a key"),
        ({"throttle": {"limit": 1}}, "throttle.period must be a duration"),
        ({"throttle": {"limit": 1, "period": "999ms"}}, "throttle.period is '999ms'; it must be at least 1s"),
        ({"throttle": {"limit": 1, "period": "a while"}}, "throttle.period: 'a while' is not a duration"),
        ({"throttle": {"limit": 1, "period": 60}}, "throttle.period must be a duration"),
        ({"throttle": {"limit": 1, "period": "1s", "burst": -1}}, "throttle.burst is -1"),
        ({"throttle": 5}, "throttle must be an object"),
        ({"rateLimit": {"limit": 0, "period": "1m"}}, "rateLimit.limit is 0"),
        ({"rateLimit": {"period": "1m"}}, "rateLimit.limit must be a whole number"),
        ({"rateLimit": {"limit": 1, "period": "25h"}}, "at most 1d"),
        ({"idempotency": 1}, "idempotency must be a string"),
        ({"debounce": {"period": "8d"}}, "at most 7d"),
        ({"debounce": {"period": "1s", "timeout": "1ms"}}, "debounce.timeout"),
        ({"batchEvents": {"maxSize": 1, "timeout": "1s"}}, "batchEvents.maxSize is 1; it must be between 2 and 100"),
        ({"batchEvents": {"maxSize": 101, "timeout": "1s"}}, "batchEvents.maxSize is 101"),
        ({"batchEvents": {"maxSize": 5}}, "batchEvents.timeout must be a duration"),
        ({"batchEvents": {"maxSize": 5, "timeout": "5ms"}}, "batchEvents.timeout"),
        ({"priority": {"run": 5}}, "priority.run must be a string"),
        ({"cancel": [{"event": "a"}] * 6}, "6 entries; at most 5"),
        ({"cancel": [{"if": "x"}]}, "cancel[].event is missing"),
        ({"cancel": [{"event": "a", "timeout": "soon"}]}, "cancel[].timeout"),
        ({"cancel": {}}, "cancel must be an array"),
        ({"singleton": {"mode": "queue"}}, "singleton.mode 'queue' is neither skip nor cancel"),
        ({"singleton": {"key": "k"}}, "singleton.mode None"),
        ({"timeouts": {"start": 5}}, "timeouts.start must be a duration"),
        ({"batchEvents": {"maxSize": 2, "timeout": "1s"}, "debounce": {"period": "1s"}}, "batchEvents cannot be combined with debounce"),
        ({"batchEvents": {"maxSize": 2, "timeout": "1s"}, "cancel": [{"event": "a"}]}, "combined with cancel"),
        ({"batchEvents": {"maxSize": 2, "timeout": "1s"}, "singleton": {"mode": "skip"}}, "combined with singleton"),
        ({"batchEvents": {"maxSize": 2, "timeout": "1s"}, "priority": {"run": "1"}}, "combined with priority"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], sentence: str) -> None:
    """Function, field, value and fix."""
    assert sentence in refused(**fields)


@pytest.mark.parametrize("functions", [b"{}", b"1", b"[1]", b"[[]]", b"[{}]", b'[{"id":""}]', b'[{"id":1}]', b"[null]", b"{", b"[" * 9999])
def test_what_is_no_list_of_functions(functions: bytes) -> None:
    """Is refused."""
    with pytest.raises(ProtocolError):
        parse_functions(functions)


BODY = {"appName": "shop", "url": "http://x/api", "sdk": "js:v4.24.0", "framework": "express", "appVersion": "2", "functions": []}


def register(**changes: Any) -> Registration:
    return parse_registration(json.dumps({**BODY, **changes}).encode())


def test_a_register_body() -> None:
    """JavaScript's spelling."""
    told = register(deployType="ping", v="0.1", capabilities={"connect": "v1"}, headers={"env": ""})
    assert (told.app_name, told.url, told.sdk, told.framework, told.app_version) == ("shop", "http://x/api", "js:v4.24.0", "express", "2")
    assert told.functions == () and len(told.checksum) == 64


def test_python_s_register_body() -> None:
    """`appname` in lower case, and nothing of an app's version."""
    told = parse_registration(
        b'{"appname":"shop","deploy_type":"ping","framework":"flask","functions":[],"sdk":"py:v0.5.19","url":"http://x","v":"0.1"}'
    )
    assert (told.app_name, told.app_version) == ("shop", "")


def test_an_in_band_answer() -> None:
    """The app's name is in `app_id` there, its SDK in two parts (§3.2)."""
    told = parse_registration(
        b'{"app_id":"shop","appVersion":"7","env":null,"framework":"flask","functions":[],"inspection":{},"platform":null,'
        b'"sdk_author":"inngest","sdk_language":"py","sdk_version":"0.5.19","url":"http://x"}'
    )
    assert (told.app_name, told.sdk, told.app_version) == ("shop", "py:v0.5.19", "7")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"appName": ""}, "appName is missing"),
        ({"appName": None}, "appName is missing"),
        ({"appName": 1}, "appName must be a string"),
        ({"url": 1}, "url must be a string"),
        ({"url": "x" * 3000}, "url has 3000 characters"),
        ({"functions": {}}, "functions must be an array"),
        ({"functions": [{"id": "a", "name": "a"}] * 2}, "two functions have the id 'a'"),
        ({"functions": [{}] * 1001}, "1001 entries; at most 1000"),
        ({"functions": [{"id": "a"}]}, "function 'a': name is empty"),
    ],
)
def test_a_register_body_that_is_wrong(changes: dict[str, Any], sentence: str) -> None:
    """400, with a sentence."""
    with pytest.raises(ProtocolError, match=sentence) as caught:
        register(**changes)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{"])
def test_what_is_no_register_body(body: bytes) -> None:
    """Is refused."""
    with pytest.raises(ProtocolError):
        parse_registration(body)


def test_the_checksum_is_of_what_was_told() -> None:
    """Whatever its order and spelling; another URL, version or setting changes it."""
    first, second = {"id": "a", "name": "a"}, {"id": "b", "name": "b"}
    told = register(functions=[first, second])
    assert told.checksum == register(functions=[{**second, "cancel": None}, {"Name": "a", "ID": "a"}], sdk="js:v5").checksum
    others = [
        register(functions=[first]),
        register(functions=[first, {**second, "retries": 1}]),
        register(functions=[first, second], url="http://y"),
        register(functions=[first, second], appVersion="3"),
    ]
    assert len({told.checksum, *(other.checksum for other in others)}) == 5


def test_our_own_register_body_is_read_as_it_was_meant() -> None:
    """A round trip, with every setting."""
    assert parse_registration(encode_registration(shop())) == shop()
    bare = registration(app_name="a", url="", sdk="s", functions=[FunctionConfig(id="f", name="f", concurrency=(Concurrency(limit=2),))])
    assert parse_registration(encode_registration(bare)) == bare


@pytest.mark.parametrize("config", FUNCTIONS)
def test_a_configuration_is_stored_whole(config: FunctionConfig) -> None:
    """And what a later version adds passes."""
    assert config_from_json(config_json(config)) == config
    assert config_from_json(config_json(config)[:-1] + b',"later":1}') == config
