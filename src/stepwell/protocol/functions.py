"""The names of function configurations and registrations in one place.

The configurations are in `config`, how one is read in `config_reader`, the register body around them in `registration`.
"""

from __future__ import annotations

from stepwell.protocol.config import (
    BATCH_SIZE_MAX,
    CANCEL_MAX,
    CONCURRENCY_MAX,
    DAY_MS,
    NAME_CHARS_MAX,
    PRIORITY_MAX_S,
    RETRIES_DEFAULT,
    RETRIES_MAX,
    TRIGGERS_MAX,
    Batch,
    Cancel,
    Concurrency,
    Debounce,
    FunctionConfig,
    Override,
    RateLimit,
    Registration,
    Singleton,
    Throttle,
    Timeouts,
    Trigger,
    config_from_json,
    config_json,
    overridden,
    override_from_json,
    override_json,
)
from stepwell.protocol.config_reader import check_event_pattern
from stepwell.protocol.cron import check_cron
from stepwell.protocol.registration import encode_function, encode_registration, parse_functions, parse_registration, registration

__all__ = [
    "BATCH_SIZE_MAX",
    "CANCEL_MAX",
    "CONCURRENCY_MAX",
    "DAY_MS",
    "NAME_CHARS_MAX",
    "PRIORITY_MAX_S",
    "RETRIES_DEFAULT",
    "RETRIES_MAX",
    "TRIGGERS_MAX",
    "Batch",
    "Cancel",
    "Concurrency",
    "Debounce",
    "FunctionConfig",
    "Override",
    "RateLimit",
    "Registration",
    "Singleton",
    "Throttle",
    "Timeouts",
    "Trigger",
    "check_cron",
    "check_event_pattern",
    "config_from_json",
    "config_json",
    "encode_function",
    "encode_registration",
    "overridden",
    "override_from_json",
    "override_json",
    "parse_functions",
    "parse_registration",
    "registration",
]
