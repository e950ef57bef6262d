"""Requests that the server makes for a step."""

from __future__ import annotations

import json

import pytest

from tests.compat.rig import Rig

pytestmark = pytest.mark.compat

SECRETS = ("sk-secret-of-the-provider", "sk-secret-in-a-header")


@pytest.mark.capability("infer")
def test_a_model_is_asked_by_the_server(rig: Rig) -> None:
    """With the provider's own way to show the key; a refusal is tried again and then the step's error."""
    trace = rig.run("infers")
    openai, anthropic, refused = trace.output
    assert openai["model"] == "gpt" and openai["choices"][0]["message"]["content"] == "forty-two"
    assert anthropic["model"] == "claude"
    assert refused == ["AIGatewayError", "Error making AI request: unsuccessful status code: 429"]
    first, second, *others = rig.notes.asked
    assert first["path"] == "/ai/chat/completions" and first["headers"]["authorization"] == f"Bearer {SECRETS[0]}"
    assert first["headers"]["x-extra"] == SECRETS[1] and first["headers"]["content-type"] == "application/json"
    assert json.loads(first["body"])["messages"] == [{"role": "user", "content": "how much is it?"}]
    assert second["path"] == "/ai/messages" and second["headers"]["x-api-key"] == SECRETS[0]
    assert len(others) == 2


@pytest.mark.capability("infer")
def test_keys_are_not_to_be_read_anywhere(rig: Rig) -> None:
    """Neither in the run nor in its events, and not in the server's log."""
    trace = rig.run("infers")
    event_id = trace.run["trigger"]["event_id"]
    paths = [f"/api/runs/{trace.id}", "/api/runs", f"/v1/runs/{trace.id}", f"/v1/events/{event_id}", "/v1/events"]
    texts = [json.dumps(rig.server.ask(path)) for path in paths] + [rig.server.text()]
    assert not [secret for secret in SECRETS for text in texts if secret in text]
