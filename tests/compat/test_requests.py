"""Requests that the server makes for a step, and what wraps the requests of others."""

from __future__ import annotations

import json

import pytest

from tests.compat.rig import Rig, Trace

pytestmark = pytest.mark.compat

SECRETS = ("sk-secret-of-the-provider", "sk-secret-in-a-header")


def told_secrets(rig: Rig, trace: Trace) -> list[str]:
    """The secrets that can be read in what the server shows of a run, or in its log."""
    event_id = trace.run["trigger"]["event_id"]
    paths = [f"/api/runs/{trace.id}", "/api/runs", f"/v1/runs/{trace.id}", f"/v1/events/{event_id}", "/v1/events"]
    texts = [json.dumps(rig.server.ask(path)) for path in paths] + [rig.server.text()]
    return [secret for secret in SECRETS for text in texts if secret in text]


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
    assert told_secrets(rig, rig.run("infers")) == []


@pytest.mark.capability("infer-gemini")
def test_a_model_with_its_key_in_the_query(rig: Rig) -> None:
    """As Gemini wants it; it is not shown either."""
    trace = rig.run("gemini")
    assert trace.output["choices"][0]["message"]["content"] == "forty-two"
    (asked,) = rig.notes.asked
    assert asked["path"].startswith("/ai/models/gem:generateContent") and f"key={SECRETS[0]}" in asked["path"]
    assert told_secrets(rig, trace) == []


@pytest.mark.capability("fetch")
def test_the_server_makes_a_steps_request(rig: Rig) -> None:
    """Method, headers and body reach their address from the server; any status is a result; a call of the app ends meanwhile."""
    trace = rig.run("fetches")
    status, header, echo, missing = trace.output
    assert (status, header, missing) == (200, "yes", 404)
    assert echo == {"method": "POST", "path": "/echo?q=1", "body": "text ü"}
    posted, got = rig.notes.asked
    assert posted["headers"]["authorization"] == f"Bearer {SECRETS[1]}"
    assert (got["method"], got["path"]) == ("GET", "/nothing")
    assert [step["op"] for step in trace.step_list] == ["gateway", "gateway"]
    assert told_secrets(rig, trace) == []


@pytest.mark.capability("wrap")
def test_a_wrapped_request_is_a_step(rig: Rig) -> None:
    """Of a type of its own, with its input shown."""
    trace = rig.run("wraps")
    assert trace.output == "what? that" and rig.notes.counts() == {"what?": 1}
    step = trace.steps["ask"]
    assert (step["type"], step["input"]) == ("step.ai.wrap", ["what?", {"answer": "that"}])


@pytest.mark.capability("wrap")
def test_the_input_of_a_step_is_shown(rig: Rig) -> None:
    """What is handed to a step beside its function."""
    trace = rig.run("inputs")
    assert trace.output == 3.5 and trace.steps["add"]["input"] == [1, 2.5]
