"""A trace tells what happened, of a live run as of an ended one (inngest-protocol §8.3)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stepwell.server.trace.outputs import OutputRef
from tests.unit.server.rig import Rig, serving, work
from tests.unit.server.shop import shop

TRACE = """
query Trace($runID: String!, $preview: Boolean = true) {
  run(runID: $runID) { status output endedAt trace(preview: $preview) { ...Span childrenSpans { ...Span childrenSpans { ...Span } } } }
}
fragment Span on RunTraceSpan {
  name runID status attempts isRoot parentSpanID spanID queuedAt startedAt endedAt duration outputID stepOp stepType stepID
  stepInfo {
    __typename
    ... on InvokeStepInfo { triggeringEventID functionID timeout returnEventID runID timedOut }
    ... on SleepStepInfo { sleepUntil }
    ... on WaitForEventStepInfo { eventName expression timeout foundEventID timedOut }
    ... on WaitForSignalStepInfo { signal timeout timedOut }
    ... on RunStepInfo { type }
  }
}
"""
OUTPUT = "query ($id: String!) { output: runTraceSpanOutputByID(outputID: $id) { data error { message name stack cause } input } }"


async def trace_of(rig: Rig, run_id: str, **variables: Any) -> dict[str, Any]:
    """The run with its trace."""
    run: dict[str, Any] = (await rig.ask(TRACE, runID=run_id, **variables))["run"]
    return run


async def output_of(rig: Rig, span: dict[str, Any]) -> dict[str, Any]:
    """What a span gave."""
    output: dict[str, Any] = (await rig.ask(OUTPUT, id=span["outputID"]))["output"]
    return output


def ms(text: str) -> float:
    """A time in milliseconds."""
    return datetime.fromisoformat(text).timestamp() * 1000


def named(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spans by their name."""
    return {span["name"]: span for span in spans}


def test_an_ended_run() -> None:
    """The root, its steps in the order of time, the tries of the one that was tried again, and the function's end."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run = await trace_of(rig, await rig.ended("shop/whole"))
            root = run["trace"]
            assert (root["name"], root["isRoot"], root["parentSpanID"], root["status"]) == ("Run", True, None, "COMPLETED")
            children = root["childrenSpans"]
            assert [span["name"] for span in children] == ["first", "left", "right", "nap", "flaky", "Finalization"]
            assert all(span["parentSpanID"] == root["spanID"] and not span["isRoot"] for span in children)
            assert len({span["spanID"] for span in children}) == 6 and all(span["runID"] == root["runID"] for span in children)
            assert [ms(span["queuedAt"]) for span in children] == sorted(ms(span["queuedAt"]) for span in children)
            spans = named(children)
            assert all(spans[name]["attempts"] == 0 and not spans[name]["childrenSpans"] for name in ("first", "left", "right", "nap"))
            assert (spans["first"]["stepOp"], spans["first"]["stepType"]) == ("RUN", "RUN")
            assert (spans["flaky"]["stepOp"], spans["flaky"]["stepType"]) == ("RUN", "step.sendEvent")
            assert spans["flaky"]["stepInfo"] == {"__typename": "RunStepInfo", "type": "step.sendEvent"}
            assert await output_of(rig, spans["first"]) == {"data": '{"n":1}', "error": None, "input": None}

            nap = spans["nap"]
            assert (nap["stepOp"], nap["outputID"], nap["stepInfo"]["__typename"]) == ("SLEEP", None, "SleepStepInfo")
            assert 300 <= nap["duration"] < 500 and abs(ms(nap["stepInfo"]["sleepUntil"]) - ms(nap["endedAt"])) < 200

            flaky = spans["flaky"]
            tries = flaky["childrenSpans"]
            assert flaky["attempts"] == 3 and flaky["status"] == "COMPLETED"
            assert [(one["name"], one["status"]) for one in tries] == [
                ("Attempt 0", "FAILED"), ("Attempt 1", "FAILED"), ("Attempt 2", "COMPLETED"),
            ]  # fmt: skip
            assert [(await output_of(rig, one))["error"] and (await output_of(rig, one))["error"]["message"] for one in tries] == [
                "try 1", "try 2", None,
            ]  # fmt: skip
            assert ms(tries[0]["endedAt"]) <= ms(tries[1]["startedAt"]) <= ms(tries[2]["startedAt"]) <= ms(flaky["endedAt"])
            assert flaky["startedAt"] == tries[0]["startedAt"] and all(one["parentSpanID"] == flaky["spanID"] for one in tries)

            final = spans["Finalization"]
            assert final["stepType"] == "FINALIZATION" and final["outputID"] == root["outputID"]
            assert (await output_of(rig, final))["data"] == run["output"] == '{"first":{"n":1},"flaky":"after 3","left":"l","right":"r"}'
            old = await trace_of(rig, root["runID"], preview=False)
            assert old["trace"]["childrenSpans"][-1]["name"] == "function success"

    work(main)


def test_a_run_that_waits_for_an_event() -> None:
    """While it waits: until when, for what, with the run's own values; afterwards what came."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/waits", {"id": "a"}))
            await rig.until(lambda: rig.steps(run_id), "the run waits")
            run = await trace_of(rig, run_id)
            (span,) = run["trace"]["childrenSpans"]
            assert (run["status"], run["trace"]["status"], run["output"], run["endedAt"]) == ("RUNNING", "RUNNING", None, None)
            assert (span["status"], span["stepOp"], span["outputID"], span["endedAt"], span["duration"]) == (
                "WAITING", "WAIT_FOR_EVENT", None, None, None,
            )  # fmt: skip
            info = span["stepInfo"]
            assert info["expression"] == '"a" == async.data.id && async.data.ok == true'
            assert (info["eventName"], info["foundEventID"], info["timedOut"]) == ("shop/answer", None, None)
            assert 3_500_000 < ms(info["timeout"]) - ms(span["startedAt"]) <= 3_600_000

            found_id = await rig.send("shop/answer", {"id": "a", "ok": True})
            await rig.end_of(run_id)
            spans = named((await trace_of(rig, run_id))["trace"]["childrenSpans"])
            answer, never = spans["answer"], spans["never"]
            assert (answer["status"], answer["stepInfo"]["foundEventID"], answer["stepInfo"]["timedOut"]) == ("COMPLETED", found_id, False)
            assert answer["stepInfo"]["timeout"] == info["timeout"] and answer["stepInfo"]["expression"] == info["expression"]
            assert '"name":"shop/answer"' in (await output_of(rig, answer))["data"]
            assert (never["status"], never["outputID"]) == ("COMPLETED", None)
            assert (never["stepInfo"]["timedOut"], never["stepInfo"]["foundEventID"]) == (True, None)

    work(main)


def test_a_run_that_invokes_others() -> None:
    """Which run it made, by which event, and what it came back with; or that it took too long."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run = await trace_of(rig, await rig.ended("shop/parent"))
            assert run["output"] == '[{"got":1},"InngestInvokeTimeoutError"]'
            spans = named(run["trace"]["childrenSpans"])
            info = spans["good"]["stepInfo"]
            assert (spans["good"]["stepOp"], info["functionID"], info["timedOut"]) == ("INVOKE", "shop-child", False)
            child = await rig.run(info["runID"])
            assert child.event_ids == (info["triggeringEventID"],)
            returned = await rig.node.reader.event(info["returnEventID"])
            assert returned is not None and (returned.name, returned.run_id) == ("inngest/function.finished", child.id)
            slow = spans["slow"]
            assert (slow["status"], slow["stepInfo"]["timedOut"], slow["stepInfo"]["returnEventID"]) == ("FAILED", True, None)
            assert (await output_of(rig, slow))["error"]["name"] == "InngestInvokeTimeoutError"
            waiting = await trace_of(rig, slow["stepInfo"]["runID"])
            (nap,) = waiting["trace"]["childrenSpans"]
            assert nap["status"] == "RUNNING" and ms(nap["stepInfo"]["sleepUntil"]) - ms(nap["startedAt"]) > 3_500_000

    work(main)


def test_a_function_that_fails() -> None:
    """Its error is the run's output word for word, and each try stands under its end."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run = await trace_of(rig, await rig.ended("shop/breaks"))
            assert run["status"] == run["trace"]["status"] == "FAILED"
            (final,) = run["trace"]["childrenSpans"]
            assert (final["name"], final["status"], final["attempts"]) == ("Finalization", "FAILED", 2)
            assert [span["name"] for span in final["childrenSpans"]] == ["Attempt 0", "Attempt 1"]
            output = await output_of(rig, final)
            assert (
                output["data"] is None and output["error"]["message"] == "the function itself" and output["error"]["name"] == "ValueError"
            )
            assert output["error"]["stack"] and '"message":"the function itself"' in run["output"]
            old = (await trace_of(rig, run["trace"]["runID"], preview=False))["trace"]["childrenSpans"]
            assert old[0]["name"] == "function error"

            run = await trace_of(rig, await rig.ended("shop/recovers"))
            (final,) = run["trace"]["childrenSpans"]
            assert [(span["name"], span["status"]) for span in final["childrenSpans"]] == [
                ("Attempt 0", "FAILED"),
                ("Attempt 1", "COMPLETED"),
            ]
            assert (await output_of(rig, final["childrenSpans"][1]))["data"] == '"after 2"'

    work(main)


def test_a_step_that_fails_for_good() -> None:
    """The step is failed, its tries too; the run that caught it is not."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run = await trace_of(rig, await rig.ended("shop/caught"))
            boom = run["trace"]["childrenSpans"][0]
            assert (run["status"], boom["status"], boom["attempts"]) == ("COMPLETED", "FAILED", 2)
            assert [(span["name"], span["status"]) for span in boom["childrenSpans"]] == [("Attempt 0", "FAILED"), ("Attempt 1", "FAILED")]
            assert (await output_of(rig, boom))["error"]["message"] == "try 2"

    work(main)


def test_a_cancelled_run() -> None:
    """What had not ended was cancelled with it; there is no end of the function to show."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/signal"))
            await rig.until(lambda: rig.steps(run_id), "the run waits")
            (span,) = (await trace_of(rig, run_id))["trace"]["childrenSpans"]
            assert (span["status"], span["stepInfo"]["signal"], span["stepInfo"]["timedOut"]) == ("WAITING", "go-ahead", None)
            await rig.cancel(run_id)
            run = await trace_of(rig, run_id)
            (span,) = run["trace"]["childrenSpans"]
            assert (run["status"], run["output"], run["trace"]["outputID"], span["status"]) == ("CANCELLED", None, None, "CANCELLED")
            assert span["endedAt"] == run["endedAt"]

    work(main)


def test_outputs_that_are_not_there() -> None:
    """Each is an error in GraphQL's form."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/signal"))
            assert "there is no output" in await rig.refused(OUTPUT, id="nonsense")
            for ref in (OutputRef(run_id, "run", ""), OutputRef(run_id, "step", "x"), OutputRef(run_id, "attempt", "x")):
                assert "it has not ended, or never was" in await rig.refused(OUTPUT, id=str(ref))

    work(main)
