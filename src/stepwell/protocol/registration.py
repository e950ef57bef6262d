"""Registrations: an app and its functions, as it tells them to the server (inngest-protocol §3), read and written."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, decode, text
from stepwell.protocol.config import Batch, Concurrency, FunctionConfig, Registration, Trigger, config_json
from stepwell.protocol.config_reader import fold, read_function
from stepwell.protocol.durations import format_duration
from stepwell.protocol.queues import Consumer

FUNCTIONS_MAX = 1000
TEXT_CHARS_MAX = 2048
"""Of an app's name, URL, version and the like."""
REGISTER_VERSION = "0.1"
SDKS_DENIED = {"js": ((3, 22, 0), (3, 53, 1))}
"""Versions of SDKs, from first to last, that a security advisory warns of (§3.1)."""

_SDK = re.compile(r"(?:inngest-)?([a-z]+):v?(\d+)\.(\d+)\.(\d+)(?![\w-])")


def parse_registration(body: bytes) -> Registration:
    """The registration of a register body, or of an in-band answer (§3.2). Raises `ProtocolError` naming what is wrong."""
    fields = fold(decode(body))
    if not isinstance(fields, dict):
        raise ProtocolError(f"the register body must be a JSON object, not {fields!r:.60}")
    app_name = _text(fields, "appName") or _text(fields, "app_id")
    if not app_name.strip():
        raise ProtocolError("appName is missing: an app is known by its name")
    sdk = _text(fields, "sdk")
    if not sdk and "sdk_language" in fields:
        sdk = f"{_text(fields, 'sdk_language')}:v{_text(fields, 'sdk_version')}"
    return registration(
        app_name=app_name,
        url=_text(fields, "url"),
        sdk=sdk,
        framework=_text(fields, "framework"),
        app_version=_text(fields, "appVersion"),
        functions=_functions(fields.get("functions", [])),
    )


def registration(
    *, app_name: str, url: str, sdk: str, framework: str = "", app_version: str = "", functions: Sequence[FunctionConfig]
) -> Registration:
    """A registration of these parts, with their checksum. Raises `ProtocolError` where two functions have the same id."""
    check_sdk(sdk)
    doubled = next((slug for slug, count in Counter(config.id for config in functions).items() if count > 1), None)
    if doubled is not None:
        raise ProtocolError(f"two functions have the id {doubled!r}: give one of them another")
    told = hashlib.sha256(canonical([app_name, url, app_version]))
    for config in sorted(functions, key=lambda config: config.id):
        told.update(config_json(config))
    return Registration(
        app_name=app_name,
        url=url,
        sdk=sdk,
        framework=framework,
        app_version=app_version,
        functions=tuple(functions),
        checksum=told.hexdigest(),
    )


def check_sdk(sdk: str) -> None:
    """Raise `ProtocolError` for an SDK whose version is known to be unsafe."""
    match = _SDK.match(sdk)
    first, last = SDKS_DENIED.get(match[1] if match else "", ((), ()))
    if match is not None and first <= (version := tuple(int(number) for number in match.groups()[1:])) <= last:
        shown, newest = (".".join(map(str, numbers)) for numbers in (version, last))
        message = f"a security advisory warns of the SDK {match[1]} {shown}, and it is not served: upgrade to one newer than {newest}"
        raise ProtocolError(message, code="sdk_version_denied")


def parse_functions(body: bytes) -> tuple[FunctionConfig, ...]:
    """The functions of a JSON array alone, as Connect's workers tell them (§9.3)."""
    return _functions(fold(decode(body)))


def _functions(value: Any) -> tuple[FunctionConfig, ...]:
    if not isinstance(value, list):
        raise ProtocolError(f"functions must be an array, not {value!r:.60}")
    if len(value) > FUNCTIONS_MAX:
        raise ProtocolError(f"functions has {len(value)} entries; at most {FUNCTIONS_MAX} are taken")
    return tuple([read_function(function) for function in value])


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key.lower(), "")
    if not isinstance(value, str):
        raise ProtocolError(f"{key} must be a string, not {value!r:.60}")
    if len(value) > TEXT_CHARS_MAX:
        raise ProtocolError(f"{key} has {len(value)} characters; at most {TEXT_CHARS_MAX} are taken")
    return value


def encode_registration(told: Registration) -> Json:
    """The canonical register body, as our own SDK sends it and every server of the protocol reads it."""
    body: dict[str, Any] = {
        "appName": told.app_name,
        "capabilities": {"connect": "v1", "in_band_sync": "v1", "trust_probe": "v1"},
        "deployType": "ping",
        "framework": told.framework,
        "functions": [encode_function(config) for config in told.functions],
        "sdk": told.sdk,
        "url": told.url,
        "v": REGISTER_VERSION,
    }
    if told.app_version:
        body["appVersion"] = told.app_version
    return canonical(body)


def encode_function(config: FunctionConfig) -> dict[str, Any]:
    """A function as a register body tells it; settings that were not made are left out."""
    step: dict[str, Any] = {"id": "step", "name": "step", "retries": {"attempts": config.retries}}
    if config.url:
        step["runtime"] = {"type": "ws" if config.url.startswith("ws") else "http", "url": config.url}
    told: dict[str, Any] = {
        "id": config.id,
        "name": config.name,
        "triggers": [_encode_trigger(trigger) for trigger in config.triggers],
        "steps": {"step": step},
        "concurrency": _encode_concurrency(config.concurrency),
        "throttle": _encode(config.throttle),
        "rateLimit": _encode(config.rate_limit),
        "idempotency": config.idempotency,
        "debounce": _encode(config.debounce),
        "batchEvents": _encode(config.batch, max_size="maxSize", where="if"),
        "priority": None if config.priority is None else {"run": config.priority},
        "cancel": [_encode(rule, where="if") for rule in config.cancel] or None,
        "singleton": _encode(config.singleton),
        "timeouts": _encode(config.timeouts),
        "consumer": None if config.consumer is None else _encode_consumer(config.consumer),
    }
    return {key: value for key, value in told.items() if value is not None}


def _encode_trigger(trigger: Trigger) -> dict[str, Any]:
    return _encode(trigger) or {}


def _encode_consumer(consumer: Consumer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "maxBatchSize": consumer.max_batch_size,
        "maxBatchTimeout": format_duration(consumer.max_batch_timeout_ms),
        "maxRetries": consumer.max_retries,
        "retryDelay": format_duration(consumer.retry_delay_ms),
        "maxConcurrency": consumer.max_concurrency,
    }
    if consumer.dead_letter:
        told["deadLetter"] = consumer.dead_letter
    if consumer.retention_ms is not None:
        told["retention"] = format_duration(consumer.retention_ms)
    return told


def _encode_concurrency(limits: Sequence[Concurrency]) -> Any:
    """The array that every SDK knows; with limits of whole runs the form that has a place for them."""
    told = [(limit.per, _encode(limit, per="")) for limit in limits]
    if any(per == "run" for per, _ in told):
        return {"fn": [limit for per, limit in told if per == "run"], "step": [limit for per, limit in told if per == "step"]}
    return [limit for _, limit in told] or None


def _encode(setting: msgspec.Struct | None, **names: str) -> dict[str, Any] | None:
    """A setting's fields that are not at their default, milliseconds as durations; `names` renames fields, to "" leaves one out."""
    if setting is None:
        return None
    told: dict[str, Any] = {}
    for field, value in msgspec.to_builtins(setting).items():
        name = names.get(field, field.removesuffix("_ms"))
        if name:
            # Batches are read as Go's durations elsewhere, which have no days (§3.4).
            told[name] = format_duration(value, days=not isinstance(setting, Batch)) if field.endswith("_ms") else value
    return told


def registered_answer(*, modified: bool, app_id: str, sync_id: str) -> Json:
    """The body that answers a register body which was taken (§3.1). It must not have an `error`, not even a null one."""
    return canonical({"ok": True, "modified": modified, "sync_id": sync_id, "app_id": app_id})


def refused_answer(message: str, status: int) -> Json:
    """The body that answers what was refused: SDKs read `status` from it, not from HTTP (§3.1, §7)."""
    return b'{"data":null,"error":%s,"status":%d}' % (text(message), status)
