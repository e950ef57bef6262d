"""The REST APIs over a real node: `/v1`, `/v2`, and what dev servers let tests set (inngest-protocol §7)."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from stepwell.protocol.ids import run_of_trace_id, step_hash, trace_id_of
from stepwell.protocol.realtime import Topic
from stepwell.server.auth import Keys
from tests.unit.server.rig import Rig, serving, work
from tests.unit.server.shop import shop

NOBODY = "01J00000000000000000000000"


async def get(rig: Rig, path: str, status: int = 200, **headers: str) -> Any:
    """A GET's JSON."""
    response = await rig.client.get(path, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


async def post(rig: Rig, path: str, body: Any = None, status: int = 200, method: str = "POST") -> Any:
    """A request's JSON."""
    response = await rig.client.request(method, path, json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_jobs_of_a_run() -> None:
    """What is outstanding, with when it is due; none of an ended run."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/waits", {"id": "a"}))
            await rig.until(lambda: rig.steps(run_id), "the run waits")
            (job,) = (await get(rig, f"/v1/runs/{run_id}/jobs"))["data"]
            assert (job["kind"], job["attempt"], job["position"]) == ("wait", 0, 0) and job["JobID"].startswith(f"wait/{run_id}/")
            ended = await rig.ended("shop/sum")
            assert (await get(rig, f"/v1/runs/{ended}/jobs"))["data"] == []
            assert (await get(rig, f"/v1/runs/{NOBODY}/jobs", 404))["status"] == 404
            assert (await get(rig, "/v1/runs/x/jobs", 400))["error"] == "'x' is no run id"

    work(main)


def test_a_run_is_waited_for() -> None:
    """A request that waits is answered when the run ends, or after its time; so long is bounded."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/waits", {"id": "a"}))

            async def waits_for_its_end() -> bool:
                return run_id in rig.node._ended

            async def nobody_waits() -> bool:
                return not rig.node._ended

            asked = asyncio.create_task(get(rig, f"/v1/runs/{run_id}?wait=25s"))
            await rig.until(waits_for_its_end, "somebody waits for the run's end")
            assert (await get(rig, f"/v1/runs/{run_id}?wait=1ms"))["data"]["status"] == "Running"
            assert not asked.done()
            await rig.client.delete(f"/v1/runs/{run_id}")
            assert (await asked)["data"]["status"] == "Cancelled"
            assert (await get(rig, f"/v1/runs/{run_id}?wait=25s"))["data"]["status"] == "Cancelled"
            await rig.until(nobody_waits, "no waiter is kept")
            refused = await get(rig, f"/v1/runs/{run_id}?wait=26s", 400)
            assert "wait is '26s'; it must be 25s or less" in refused["error"]
            assert "is not a duration" in (await get(rig, f"/v1/runs/{run_id}?wait=soon", 400))["error"]
            await get(rig, f"/v1/runs/{NOBODY}?wait=25s", 404)

    work(main)


def test_functions_of_an_app() -> None:
    """A bare array, as the API has it."""

    async def main() -> None:
        async with serving(shop()) as rig:
            functions = await get(rig, "/v1/apps/shop/functions")
            assert {f["slug"] for f in functions} == {f"shop-{f.removeprefix('shop-')}" for f in shop().functions}
            whole = next(f for f in functions if f["slug"] == "shop-whole")
            assert (whole["triggers"], whole["name"], whole["version"]) == ([{"event": "shop/whole"}], "whole", 1)
            await get(rig, "/v1/apps/nobody/functions", 404)

    work(main)


def test_metadata_by_request() -> None:
    """About the run or a step by its name; shown in the trace; refused with a sentence where it cannot be."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum")
            path = f"/v1/runs/{run_id}/metadata"
            target = {"run_id": run_id, "step_id": "two"}
            note = {"kind": "userland.x", "op": "set", "values": {"a": 1}}
            await post(rig, path, {"target": target, "metadata": [note]})
            await post(rig, path, {"target": {"run_id": run_id}, "metadata": [{**note, "op": "merge", "values": {"r": 1}}]})
            trace = (await get(rig, f"/v2/runs/{run_id}/trace"))["data"]["rootSpan"]
            assert [(one["kind"], one["values"]) for one in trace["metadata"]] == [("userland.x", {"r": 1})]
            two = next(span for span in trace["children"] if span["name"] == "two")
            assert [(one["scope"], one["values"]) for one in two["metadata"]] == [("step", {"a": 1})]
            assert "none of merge, set, delete" in (await post(rig, path, {"metadata": [{"kind": "k", "op": "add"}]}, 400))["error"]
            large = {"kind": "k", "op": "set", "values": {"x": "x" * 70_000}}
            assert "at most 65536" in (await post(rig, path, {"metadata": [large]}, 413))["error"]
            await post(rig, f"/v1/runs/{NOBODY}/metadata", {"metadata": [note]}, 404)

    work(main)


def exported(run_id: str, step: str = "") -> dict[str, Any]:
    """An export as SDKs make it: a span of the app's call, and one inside."""
    own = [{"key": "sdk.run.id", "value": {"stringValue": run_id}}]
    named = [*own, {"key": "inngest.step.hash", "value": {"stringValue": step}}, {"key": "n", "value": {"intValue": "7"}}]

    def span(span_id: str, parent: str, name: str, attributes: Any, **more: Any) -> dict[str, Any]:
        times = {"startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000000250000000"}
        return {
            "traceId": "0" * 32,
            "spanId": span_id,
            "parentSpanId": parent,
            "name": name,
            "kind": 1,
            "attributes": attributes,
            **times,
            **more,
        }

    spans = [
        span("00f067aa0ba902b7", "1111111111111111", "work", named),
        span("00f067aa0ba902b8", "00f067aa0ba902b7", "query", own, status={"code": 2, "message": "no rows"}),
    ]
    resource = {
        "attributes": [{"key": "service.name", "value": {"stringValue": "app"}}, {"key": "host.name", "value": {"stringValue": "h"}}]
    }
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "pg", "version": "1"}, "spans": spans}]}]}


@pytest.mark.parametrize("path", ["/v1/traces/userland", "/dev/traces"])
def test_spans_of_the_apps_own_code_stand_in_the_trace(path: str) -> None:
    """Under their step and under each other, with what they tell; the same export twice is kept once."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum")
            for _ in range(2):
                assert await post(rig, path, exported(run_id, step_hash("two"))) == {}
            query = """
            query ($id: String!) { run(runID: $id) { trace(preview: true) { childrenSpans { name spanID childrenSpans {
              name spanID status isUserland duration parentSpanID
              userlandSpan { spanName spanKind serviceName scopeName scopeVersion spanAttrs resourceAttrs }
              childrenSpans { name status parentSpanID } } } } } }
            """
            steps = (await rig.ask(query, id=run_id))["run"]["trace"]["childrenSpans"]
            assert [len(step["childrenSpans"]) for step in steps] == [0, 1, 0, 0]
            (span,) = steps[1]["childrenSpans"]
            assert (span["name"], span["isUserland"], span["duration"], span["parentSpanID"]) == ("work", True, 250, steps[1]["spanID"])
            told = span["userlandSpan"]
            assert (told["spanKind"], told["serviceName"], told["scopeName"], told["scopeVersion"]) == ("internal", "app", "pg", "1")
            assert '"n":7' in told["spanAttrs"] and "host" not in told["resourceAttrs"]
            assert span["childrenSpans"] == [{"name": "query", "status": "FAILED", "parentSpanID": span["spanID"]}]

    work(main)


def test_exports_in_protobuf_and_compressed() -> None:
    """Answered in their own form; spans are found by the trace id of the run, too, and strangers are counted."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum")
            assert run_of_trace_id(trace_id_of(run_id)) == run_id
            export = ExportTraceServiceRequest()
            scoped = export.resource_spans.add().scope_spans.add()
            for trace_id, span_id in ((trace_id_of(run_id), b"12345678"), (trace_id_of(NOBODY), b"87654321")):
                scoped.spans.add(
                    trace_id=bytes.fromhex(trace_id), span_id=span_id, name="n", start_time_unix_nano=10**18, end_time_unix_nano=10**18 + 1
                )
            headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
            response = await rig.client.post("/v1/traces/userland", content=gzip.compress(export.SerializeToString()), headers=headers)
            assert response.status_code == 200 and response.headers["content-type"] == "application/x-protobuf"
            answer = ExportTraceServiceResponse.FromString(response.content)
            assert answer.partial_success.rejected_spans == 1 and NOBODY in answer.partial_success.error_message
            (row,) = await rig.node.reader.spans_of(run_id)
            assert (row.id, row.name) == (b"12345678".hex(), "n")
            json = {"content-type": "application/json"}
            for content, headers, status in (
                (b"\xff\xff", {"content-type": "application/x-protobuf"}, 400),
                (b"{", json, 400),
                (b"[]", json, 400),
                (b"nonsense", {**json, "content-encoding": "gzip"}, 400),
                (b" " * (8 * 1024 * 1024 + 1), json, 413),
                (gzip.compress(b" " * (8 * 1024 * 1024 + 1)), {**json, "content-encoding": "gzip"}, 413),
            ):
                response = await rig.client.post("/v1/traces/userland", content=content, headers=headers)
                assert response.status_code == status, (content[:9], response.text)

    work(main)


def test_limits_of_a_function_of_a_dev_server() -> None:
    """Set and taken back, for one function; other servers have no such route."""

    async def main() -> None:
        async with serving(shop()) as rig:
            form = {"functionId": "shop-sum", "limit": "2"}
            assert (await rig.client.post("/fn/step-limit", data=form)).json() == {"function_id": "shop-sum", "limit": 2}
            run = await rig.run(await rig.ended("shop/sum"))
            assert b"step limit of 2 steps" in (run.output or b"")
            assert (await rig.run(await rig.ended("shop/whole"))).status == "completed"
            assert (await rig.client.request("DELETE", "/fn/step-limit", data=form)).json()["limit"] is None
            assert (await rig.run(await rig.ended("shop/sum"))).status == "completed"
            await rig.client.post("/fn/state-size-limit", data={**form, "limit": "20"})
            run = await rig.run(await rig.ended("shop/sum"))
            assert b"state size limit of 20 bytes" in (run.output or b"")
            assert (await rig.client.post("/fn/step-limit", data={"functionId": "x", "limit": "2"})).status_code == 404
            assert "limit is 'many'" in (await rig.client.post("/fn/step-limit", data={**form, "limit": "many"})).text
        keys = Keys(signing_key="signkey-test-12ab", admin_token="t")
        async with serving(shop(), keys, "cloud") as rig:
            headers = {"authorization": "Bearer signkey-test-12ab"}
            assert (await rig.client.post("/fn/step-limit", data=form, headers=headers)).status_code == 404
            assert (await rig.client.get("/v1/apps/shop/functions")).status_code == 401
            assert (await rig.client.get("/v2/runs")).json()["errors"][0]["code"] == "unauthorized"
            assert (await rig.client.get("/v2/keys/signing", headers=headers)).json()["data"][0]["name"] == "signing key"

    work(main)


def test_figures_and_telemetry() -> None:
    """Text as Prometheus reads it."""

    async def main() -> None:
        async with serving(shop()) as rig:
            text = (await rig.client.get("/v1/prom/dev")).text
            assert "# TYPE stepwell_functions gauge\nstepwell_functions " + str(len(shop().functions)) in text
            assert (await rig.client.post("/v0/telemetry", json={})).status_code == 200
            hub = rig.node.realtime.hub
            hub.subscribe([Topic("c", "t")])
            rig.node.realtime.publish("c", ("t",), msgspec.Raw(b"1"), run_id="")
            rig.node.realtime.publish("c", ("other",), msgspec.Raw(b"1"), run_id="")
            text = (await rig.client.get("/v1/prom/dev")).text
            assert "# TYPE stepwell_realtime_subscribers gauge\nstepwell_realtime_subscribers 1\n" in text
            assert "# TYPE stepwell_realtime_published_total counter\nstepwell_realtime_published_total 2\n" in text
            assert "\nstepwell_realtime_delivered_total 1\n" in text and "\nstepwell_realtime_dropped_total 0\n" in text

    work(main)


@pytest.mark.parametrize("prefix", ["/v2", "/api/v2"])
def test_v2_sends_and_reads(prefix: str) -> None:
    """An event, its runs, pages of runs, a run with its output."""

    async def main() -> None:
        async with serving(shop()) as rig:
            assert (await get(rig, f"{prefix}/health"))["data"] == {"status": "ok"}
            event_id = (await post(rig, f"{prefix}/events", {"name": "shop/sum", "data": {"n": 1}}))["data"]["eventId"]
            run_id = await rig.run_of(event_id)
            await rig.end_of(run_id)
            (shown,) = (await get(rig, f"{prefix}/events/{event_id}/runs?includeOutput=true"))["data"]
            assert (shown["id"], shown["status"], shown["output"], shown["error"]) == (run_id, "COMPLETED", 6, None)
            assert "output" not in (await get(rig, f"{prefix}/runs/{run_id}"))["data"]
            bad = await rig.ended("shop/breaks")
            first = await get(rig, f"{prefix}/runs?limit=1&includeOutput=1")
            assert first["data"][0]["id"] == bad and first["data"][0]["error"]["message"] == "the function itself"
            assert first["page"]["hasMore"] and first["page"]["limit"] == 1
            second = await get(rig, f"{prefix}/runs?limit=1&cursor={first['page']['cursor']}")
            assert [run["id"] for run in second["data"]] == [run_id] and second["page"] == {"cursor": None, "hasMore": False, "limit": 1}
            assert [run["id"] for run in (await get(rig, f"{prefix}/runs?status=completed,running"))["data"]] == [run_id]
            assert [run["id"] for run in (await get(rig, f"{prefix}/runs?functionId=shop-breaks"))["data"]] == [bad]
            assert [run["id"] for run in (await get(rig, f"{prefix}/apps/shop/functions/sum/runs"))["data"]] == [run_id]
            for path, status in (
                ("/runs?status=odd", 400),
                ("/runs?cursor=%25", 400),
                (f"/runs/{NOBODY}", 404),
                (f"/events/{NOBODY}/runs", 404),
            ):
                error = (await get(rig, prefix + path, status))["errors"][0]
                assert error["message"] and error["code"] in ("bad_request", "not_found")
            assert (await post(rig, f"{prefix}/events", {"data": {}}, 400))["errors"][0]["message"].startswith("an event needs a name")
            trace = (await get(rig, f"{prefix}/runs/{run_id}/trace?includeOutput=true"))["data"]["rootSpan"]
            assert [(span["name"], span.get("output")) for span in trace["children"]] == [
                ("one", 1),
                ("two", 2),
                ("three", 3),
                ("Finalization", 6),
            ]

    work(main)


def test_a_signal_is_kept() -> None:
    """For a step that waits later, where its sender wants that; else nobody is there."""

    async def main() -> None:
        async with serving(shop()) as rig:
            await post(rig, "/v1/signals", {"signal": "go-ahead", "data": 1}, 404)
            kept = await post(rig, "/v1/signals", {"signal": "go-ahead", "data": {"n": 1}, "keep": "1h"})
            assert kept["data"] == {"run_id": None}
            assert (await get(rig, "/kv"))["namespaces"] == []
            run_id = await rig.ended("shop/signal")
            (step,) = await rig.steps(run_id)
            assert step.memo == b'{"data":{"data":{"n":1},"signal":"go-ahead"}}'
            for keep, reason in ((3, "must be a duration"), ("0s", "more than nothing"), ("400d", "at most"), ("soon", "soon")):
                told = await post(rig, "/v1/signals", {"signal": "x", "data": 1, "keep": keep}, 400)
                assert reason in told["error"]

    work(main)


def test_v2_acts() -> None:
    """Cancel, rerun from a step, invoke, score, sync."""

    async def main() -> None:
        synced: list[str] = []

        async def sync(url: str) -> None:
            synced.append(url)

        async with serving(shop(), sync_url=sync) as rig:
            run_id = await rig.run_of(await rig.send("shop/signal"))
            assert (await post(rig, f"/v2/runs/{run_id}/cancel"))["data"]["status"] == "CANCELLED"
            ended = await rig.ended("shop/sum")
            assert (await post(rig, f"/v2/runs/{ended}/cancel", status=409))["errors"][0]["code"] == "conflict"
            again = (await post(rig, f"/v2/runs/{ended}/rerun", {"fromStep": {"stepId": "two", "input": [10]}}))["data"]["runId"]
            assert (await rig.end_of(again)).output == b"14"
            assert (await rig.end_of((await post(rig, f"/v2/runs/{ended}/rerun"))["data"]["runId"])).output == b"6"
            assert "fromStep must be" in (await post(rig, f"/v2/runs/{ended}/rerun", {"fromStep": "two"}, 400))["errors"][0]["message"]
            invoked = (await post(rig, "/v2/apps/shop/functions/child/invoke", {"data": {"x": 1}}))["data"]["runId"]
            assert (await rig.end_of(invoked)).function_id == "shop-child"
            await post(rig, "/v2/apps/shop/functions/nothing/invoke", {}, 404)
            once = [await post(rig, "/v2/apps/shop/functions/child/invoke", {"idempotencyKey": "k"}) for _ in range(2)]
            assert once[0]["data"]["runId"] == once[1]["data"]["runId"] != invoked
            from_page = (await post(rig, f"/api/runs/{ended}/rerun", {"fromStep": {"stepId": "three"}}))["run_id"]
            assert (await rig.end_of(from_page)).output == b"6" and len(await rig.steps(from_page)) == 3
            assert (await rig.end_of((await post(rig, f"/api/runs/{ended}/rerun"))["run_id"])).output == b"6"
            await post(rig, f"/v2/runs/{ended}/scores", {"name": "good", "value": 0.5})
            await post(rig, f"/v2/runs/{ended}/scores", {"name": "fast", "value": True, "stepId": "two"})
            trace = (await get(rig, f"/v2/runs/{ended}/trace"))["data"]["rootSpan"]
            assert [one["values"] for one in trace["metadata"]] == [{"good": {"value": 0.5}}, {"fast": {"value": True}}]
            assert (
                "must be a number"
                in (await post(rig, f"/v2/runs/{ended}/scores", {"name": "n", "value": "x"}, 400))["errors"][0]["message"]
            )
            assert (await post(rig, "/v2/apps/shop/syncs", {"url": "http://x"}))["data"]["appId"] == "shop"
            assert (await post(rig, "/v2/apps/shop/syncs"))["data"]["url"] == "http://x" and synced == ["http://x"] * 2
            await post(rig, "/v2/apps/new/syncs", {}, 400)

    work(main)


def test_v2_tells_what_there_is() -> None:
    """Apps and functions; one account, one environment, no keys of a dev server."""

    async def main() -> None:
        async with serving(shop()) as rig:
            (app,) = (await get(rig, "/v2/apps"))["data"]
            assert (app["id"], app["functionCount"]) == ("shop", len(shop().functions))
            assert (await get(rig, f"/v2/apps/{app['internalId']}"))["data"] == app
            assert len((await get(rig, "/v2/apps/shop/functions"))["data"]) == len(shop().functions)
            function = (await get(rig, "/v2/apps/shop/functions/shop-sum"))["data"]
            assert function["slug"] == "shop-sum" and (await get(rig, "/v2/apps/shop/functions/sum"))["data"] == function
            assert (await get(rig, "/v2/account"))["data"]["id"] and len((await get(rig, "/v2/envs"))["data"]) == 1
            assert (await get(rig, "/v2/keys/events"))["data"] == (await get(rig, "/v2/keys/signing"))["data"] == []
            await get(rig, "/v2/apps/nobody", 404)

    work(main)
