"""Error objects as they cross the wire: always with the strings `name` and `message`, often with `stack`, `code` or `cause`."""

from __future__ import annotations

from typing import Any

from stepwell.errors import ProtocolError
from stepwell.protocol.codec import Json, canonical, decode

SHOWN_BYTES_MAX = 8 * 1024
"""What is kept of a body that is no error object (§4.7)."""


def error_json(name: str, message: str, stack: str | None = None, code: str | None = None) -> Json:
    """An error object of our own making."""
    error = {"name": name, "message": message}
    if stack:
        error["stack"] = stack
    if code:
        error["code"] = code
    return canonical(_mended(error))


def normal_error(value: Any, otherwise: str) -> Json:
    """What an app gave as its error, as an object with name and message; whole as it came where it has both.

    `otherwise` is the message of an error that has none.
    """
    if isinstance(value, str):
        # JavaScript's SDK may send the object as a text of JSON.
        try:
            inner = decode(value)
        except ProtocolError:
            inner = None
        value = inner if isinstance(inner, dict) else {"message": value}
    if not isinstance(value, dict):
        value = {} if value is None else {"message": canonical(value)[:SHOWN_BYTES_MAX].decode("utf-8", "replace")}
    name, message = value.get("name"), value.get("message")
    if not isinstance(name, str) or not name:
        name = value.get("code")
    if not isinstance(message, str):
        # A requested step that is no more comes as {"error", "requestedStep", "foundSteps"} (§4.5).
        message = value.get("error")
    return canonical(
        {
            **value,
            "name": name if isinstance(name, str) and name else "Error",
            "message": message if isinstance(message, str) else otherwise,
        }
    )


def shown(body: bytes) -> str:
    """The beginning of a body, to be read by people."""
    return body[:SHOWN_BYTES_MAX].decode("utf-8", "replace")


def _mended(error: dict[str, str]) -> dict[str, str]:
    """Texts of exceptions may hold halves of surrogate pairs, as file names do; an error must not fail to be told."""
    return {key: text.encode("utf-8", "replace").decode() if not text.isascii() else text for key, text in error.items()}
