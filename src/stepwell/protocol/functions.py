"""The names of function configurations and registrations in one place.

The configurations are in `config`, how one is read in `config_reader`, the register body around them in `registration`.
"""

from __future__ import annotations

from stepwell.protocol.config import (
    RETRIES_DEFAULT,
    RETRIES_MAX,
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
)
from stepwell.protocol.registration import encode_function, encode_registration, parse_functions, parse_registration, registration_of

__all__ = [
    "RETRIES_DEFAULT",
    "RETRIES_MAX",
    "Batch",
    "Cancel",
    "Concurrency",
    "Debounce",
    "FunctionConfig",
    "RateLimit",
    "Registration",
    "Singleton",
    "Throttle",
    "Timeouts",
    "Trigger",
    "config_from_json",
    "config_json",
    "encode_function",
    "encode_registration",
    "parse_functions",
    "parse_registration",
    "registration_of",
]
