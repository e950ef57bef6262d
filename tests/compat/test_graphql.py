"""What the SDKs' own suites ask by GraphQL, with their operations and selections, of runs of apps with unmodified SDKs (§8.1, §8.3)."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.compat.rig import Rig
from tests.support.processes import until

pytestmark = pytest.mark.compat

DETAILS = """
fragment TraceDetails on RunTraceSpan {
  name runID status attempts isRoot parentSpanID spanID startedAt endedAt duration outputID stepOp
  stepInfo {
    __typename
    ... on InvokeStepInfo { triggeringEventID functionID timeout returnEventID runID timedOut }
    ... on SleepStepInfo { sleepUntil }
    ... on WaitForEventStepInfo { eventName expression timeout foundEventID timedOut }
    ... on RunStepInfo { type }
  }
}
"""
RUN_WITH_TRACE = (
    """
query ($runID: String!, $preview: Boolean) {
  run(runID: $runID) {
    status traceID isBatch batchCreatedAt cronSchedule endedAt
    trace(preview: $preview) { ...TraceDetails childrenSpans { ...TraceDetails childrenSpans { ...TraceDetails } } }
  }
}
"""
    + DETAILS
)
OUTPUT = "query ($outputID: String!) { output: runTraceSpanOutputByID(outputID: $outputID) { data error { message name stack cause } } }"
CHILDREN = "query ($runID: String!) { run(runID: $runID) { trace { childrenSpans { name outputID } } } }"
STATUS = (
    "query ($runID: String!) { run(runID: $runID) { status trace(preview: true) { status outputID name stepID spanID stepType attempts"
    " metadata { scope kind values updatedAt } childrenSpans { name status stepType outputID childrenSpans { name outputID } } } } }"
)
RUNS_OF_EVENT = "query ($id: ID!) { event(query: {eventId: $id}) { functionRuns { id } } }"
OUTPUT_AND_TRIGGER = "query ($runID: String!) { run(runID: $runID) { output status } runTrigger(runID: $runID) { payloads } }"
TRIGGER = "query ($runID: String!) { runTrigger(runID: $runID) { eventName IDs timestamp payloads isBatch batchID cron } }"
FUNCTION_RUN = "query ($id: ID!) { functionRun(query: {functionRunId: $id}) { output status } }"
RUNS = """
query ($first: Int, $after: String, $from: Time!, $query: String, $field: RunsV2OrderByField!) {
  runs(first: $first, after: $after, filter: {from: $from, query: $query}, orderBy: [{field: $field, direction: DESC}], preview: true) {
    edges { cursor node { id status traceID startedAt queuedAt endedAt } }
    pageInfo { startCursor endCursor hasNextPage } totalCount(preview: true)
  }
}
"""
EVENTS = """
query ($first: Int!, $from: Time!, $query: String) {
  eventsV2(first: $first, filter: {from: $from, query: $query}) {
    edges { node { name id occurredAt receivedAt raw runs { status id startedAt endedAt function { name slug } } } }
    totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""
EVENT = (
    "query ($id: ULID!) { eventV2(id: $id) { id idempotencyKey name occurredAt raw receivedAt version"
    " runs { id status function { name } } } }"
)


def gql(rig: Rig, document: str, /, **variables: Any) -> dict[str, Any]:
    """A document's data."""
    answer = rig.server.ask("/v0/gql", {"query": document, "variables": variables})
    assert "errors" not in answer, answer["errors"]
    data: dict[str, Any] = answer["data"]
    return data


def traced(rig: Rig, run_id: str) -> dict[str, Any]:
    """A run with its trace."""
    run: dict[str, Any] = gql(rig, RUN_WITH_TRACE, runID=run_id, preview=True)["run"]
    return run


def named(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spans by name."""
    return {span["name"]: span for span in spans}


@pytest.mark.capability("run")
def test_an_ended_runs_trace(rig: Rig) -> None:
    """Its steps in order with their outputs, the sleep's length, the tries, the function's end."""
    run_id = rig.run("whole", {"x": 1}).id
    run = traced(rig, run_id)
    assert (run["status"], run["isBatch"], run["cronSchedule"]) == ("COMPLETED", False, None) and run["traceID"] and run["endedAt"]
    root = run["trace"]
    assert (root["name"], root["isRoot"], root["runID"], root["status"]) == ("Run", True, run_id, "COMPLETED")
    children = root["childrenSpans"]
    assert [span["name"] for span in children][:1] == ["first"] and children[-1]["name"] == "Finalization"
    assert {span["name"] for span in children} == {"first", "left", "right", "nap", "flaky", "send", "Finalization"}
    assert all(span["parentSpanID"] == root["spanID"] for span in children)
    spans = named(children)
    assert (spans["first"]["attempts"], spans["first"]["stepOp"], spans["first"]["status"]) == (0, "RUN", "COMPLETED")
    nap = spans["nap"]
    assert nap["stepOp"] == "SLEEP" and nap["outputID"] is None and 100 <= nap["duration"] < 2000 and nap["stepInfo"]["sleepUntil"]
    tries = spans["flaky"]["childrenSpans"]
    assert spans["flaky"]["attempts"] == 3 and [span["name"] for span in tries] == ["Attempt 0", "Attempt 1", "Attempt 2"]
    failed = gql(rig, OUTPUT, outputID=tries[0]["outputID"])["output"]
    assert failed["data"] is None and failed["error"]["message"] == "try 1"
    outputs = {name: gql(rig, OUTPUT, outputID=spans[name]["outputID"])["output"] for name in ("first", "flaky", "Finalization")}
    assert json.loads(outputs["first"]["data"]) == {"whole": 1, "half": 1.5} and outputs["flaky"] == {"data": "3", "error": None}
    shown = gql(rig, OUTPUT_AND_TRIGGER, runID=run_id)
    assert json.loads(outputs["Finalization"]["data"]) == json.loads(shown["run"]["output"])
    assert json.loads(shown["runTrigger"]["payloads"][0])["data"] == {"x": 1}
    assert gql(rig, FUNCTION_RUN, id=run_id)["functionRun"] == shown["run"]
    legacy = gql(rig, CHILDREN, runID=run_id)["run"]["trace"]["childrenSpans"]
    assert legacy[-1]["name"] == "function success"
    polled = gql(rig, STATUS, runID=run_id)["run"]["trace"]
    assert polled["status"] == "COMPLETED" and gql(rig, OUTPUT, outputID=polled["outputID"])["output"]["data"] == shown["run"]["output"]


@pytest.mark.capability("run")
def test_runs_and_events_are_found(rig: Rig) -> None:
    """By their event, by time, by expressions, page by page."""
    # A run's time is in whole milliseconds: the first one could lie before this very moment.
    began = (datetime.now().astimezone() - timedelta(milliseconds=1)).isoformat()
    events = [rig.send("plain", {"n": n, "group": began}) for n in range(3)]
    runs = [rig.server.run_of(event_id) for event_id in events]
    for run_id in runs:
        rig.ended(run_id)
    assert gql(rig, RUNS_OF_EVENT, id=events[0])["event"]["functionRuns"] == [{"id": runs[0]}]
    trigger = gql(rig, TRIGGER, runID=runs[0])["runTrigger"]
    assert (trigger["eventName"], trigger["IDs"], trigger["isBatch"], trigger["cron"]) == (rig.event("plain"), [events[0]], False, None)
    group = json.dumps(began)
    page = gql(rig, RUNS, first=2, **{"from": began}, query=f"event.data.group == {group}", field="QUEUED_AT")["runs"]
    assert [edge["node"]["id"] for edge in page["edges"]] == [runs[2], runs[1]] and page["totalCount"] == 3
    rest = gql(
        rig, RUNS, first=2, after=page["pageInfo"]["endCursor"], **{"from": began}, query=f"event.data.group == {group}", field="QUEUED_AT"
    )["runs"]
    assert [edge["node"]["id"] for edge in rest["edges"]] == [runs[0]] and not rest["pageInfo"]["hasNextPage"]
    found = gql(rig, EVENTS, first=9, **{"from": began}, query=f"event.data.group == {group}\nevent.data.n > 0")["eventsV2"]
    assert [edge["node"]["id"] for edge in found["edges"]] == events[:0:-1] and found["totalCount"] == 2
    assert found["edges"][0]["node"]["runs"][0]["function"]["slug"] == rig.slug("plain")
    one = gql(rig, EVENT, id=events[0])["eventV2"]
    assert one["runs"][0]["id"] == runs[0] and json.loads(one["raw"])["data"]["n"] == 0
    functions = gql(rig, "{ functions { id name app { id externalID name } } }")["functions"]
    assert any(function["app"]["externalID"] == rig.app_id for function in functions)


@pytest.mark.capability("wait")
def test_a_waiting_runs_trace(rig: Rig) -> None:
    """While it waits: for what, until when, with the run's own values; then what came, and what did not."""
    run_id = rig.start("waits", {"id": "graphql"})
    rig.waiting(run_id, "answer")
    run = traced(rig, run_id)
    span = named(run["trace"]["childrenSpans"])["answer"]
    assert (run["status"], run["endedAt"], span["status"], span["stepOp"]) == ("RUNNING", None, "WAITING", "WAIT_FOR_EVENT")
    info = span["stepInfo"]
    assert info["eventName"] == rig.event("answer") and info["expression"].startswith('"graphql" == async.data.id') and info["timeout"]
    assert (info["foundEventID"], info["timedOut"]) == (None, None)
    found_id = rig.send("answer", {"id": "graphql", "ok": True})
    rig.ended(run_id)
    spans = named(traced(rig, run_id)["trace"]["childrenSpans"])
    assert (spans["answer"]["stepInfo"]["foundEventID"], spans["answer"]["stepInfo"]["timedOut"]) == (found_id, False)
    assert spans["never"]["stepInfo"]["timedOut"] is True and spans["never"]["outputID"] is None


@pytest.mark.capability("invoke")
def test_an_invoking_runs_trace(rig: Rig) -> None:
    """Which run each step made, and what came of it."""
    run = traced(rig, rig.run("invokes").id)
    spans = named(run["trace"]["childrenSpans"])
    good = spans["good"]["stepInfo"]
    assert (good["__typename"], good["functionID"], good["timedOut"]) == ("InvokeStepInfo", rig.slug("child"), False)
    child = gql(rig, OUTPUT_AND_TRIGGER, runID=good["runID"])
    assert child["run"]["status"] == "COMPLETED" and json.loads(child["runTrigger"]["payloads"][0])["data"]["x"] == [1, 2]
    assert gql(rig, TRIGGER, runID=good["runID"])["runTrigger"]["IDs"] == [good["triggeringEventID"]]
    returned = gql(rig, EVENT, id=good["returnEventID"])["eventV2"]
    assert returned["name"] == "inngest/function.finished" and json.loads(returned["raw"])["data"]["run_id"] == good["runID"]
    assert spans["slow"]["stepInfo"]["timedOut"] is True and spans["slow"]["status"] == "FAILED"
    assert spans["nobody"]["status"] == "FAILED"


@pytest.mark.capability("function-retry")
def test_a_failing_functions_trace(rig: Rig) -> None:
    """The error is the output, word for word, and each try stands under the function's end."""
    trace = rig.run("failing")
    run = traced(rig, trace.id)
    final = run["trace"]["childrenSpans"][-1]
    assert (run["status"], final["name"], final["status"]) == ("FAILED", "Finalization", "FAILED")
    assert [span["name"] for span in final["childrenSpans"]] == ["Attempt 0", "Attempt 1"]
    output = gql(rig, OUTPUT, outputID=final["outputID"])["output"]
    assert output["data"] is None and output["error"]["message"] == trace.error["message"]
    assert json.loads(gql(rig, OUTPUT_AND_TRIGGER, runID=trace.id)["run"]["output"]) == trace.error


@pytest.mark.capability("rerun")
def test_a_run_begun_from_a_step(rig: Rig) -> None:
    """The app is called with what was kept, and does the rest anew."""
    run_id = rig.run("whole", {"x": 2}).id
    rig.notes.clear()
    document = "mutation ($id: ULID!, $step: String!) { rerun(runID: $id, fromStep: {stepID: $step}) }"
    again = gql(rig, document, id=run_id, step="nap")["rerun"]
    trace = rig.ended(again)
    assert trace.output[4] == {"x": 2} and "first" not in rig.notes.counts() and rig.notes.counts().get("flaky", 0) >= 1
    assert {"first", "left", "right", "nap", "flaky", "send"} == set(trace.steps)


@pytest.mark.capability("run")
def test_output_and_final_status_are_seen_together(rig: Rig) -> None:
    """Whoever polls never sees an ended run without its output."""
    run_id = rig.start("whole", {})

    def look() -> dict[str, Any] | None:
        run: dict[str, Any] = gql(rig, OUTPUT_AND_TRIGGER, runID=run_id)["run"]
        assert (run["output"] is not None) == (run["status"] == "COMPLETED"), run
        return run if run["status"] == "COMPLETED" else None

    until(look, f"run {run_id} ends")
