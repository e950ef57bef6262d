"""What the commands that talk to a server share: where it is, the token, and how its refusals are told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import click

from stepwell.errors import Error

URL_DEFAULT = "http://127.0.0.1:8288"


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that talk to a server."""
    for option in (
        click.option("--url", envvar="STEPWELL_URL", default=URL_DEFAULT, show_default=True, help="The server."),
        click.option("--token", envvar="STEPWELL_ADMIN_TOKEN", help="The admin token, where the server asks for one."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


def ask(url: str, token: str | None, method: str, path: str, body: bytes | None = None) -> Any:
    """The server's answer. Raises `Error` with the server's own sentence."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url.rstrip("/") + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        try:
            message = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            message = text[:300] or f"HTTP {error.code}"
        raise Error(message) from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Error(f"the server {url} could not be reached: {getattr(error, 'reason', error)}. Is it running? (`stepwell dev`)") from None
