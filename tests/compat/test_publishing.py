"""What functions publish while they run."""

from __future__ import annotations

import json
import secrets

import pytest
from websockets.sync.client import connect

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat


@pytest.mark.capability("realtime")
def test_what_a_function_publishes_is_heard(rig: Rig) -> None:
    """In order, each once, by who listens to the topic; the SDK shows the key that the server asks for."""
    channel = f"{rig.app_id}:{secrets.token_hex(4)}"
    jwt = rig.server.ask("/v1/realtime/token", [{"channel": channel, "name": "status", "kind": "run"}])["jwt"]
    with connect(f"{rig.server.url.replace('http', 'ws')}/v1/realtime/connect?token={jwt}") as listener:
        assert rig.run("publishes", {"channel": channel}).output == "told"
        messages = [json.loads(listener.recv(timeout=10)) for _ in range(2)]
    assert [(one["kind"], one["topic"], one["data"]) for one in messages] == [
        ("data", "status", {"n": 1, "text": "ü"}),
        ("data", "status", {"n": 2, "text": "ü"}),
    ]
