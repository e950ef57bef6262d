"""GraphQL over a real node: what SDKs' tools and tests ask (inngest-protocol §8), word for word where they give the words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_introspection_query

from stepwell.engine.inputs import MetadataTold
from stepwell.protocol.metadata import Note
from stepwell.server.auth import Keys
from stepwell.server.graphql.api import schema
from tests.unit.server.rig import Rig, serving, work
from tests.unit.server.shop import shop

RUNS = """
query ($first: Int! = 40, $after: String, $filter: RunsFilterV2!, $orderBy: [RunsV2OrderBy!]!) {
  runs(first: $first, after: $after, filter: $filter, orderBy: $orderBy, preview: true) {
    edges { cursor node { id status startedAt queuedAt endedAt } } pageInfo { startCursor endCursor hasNextPage } totalCount(preview: true)
  }
}
"""
LONG_AGO = "2020-01-01T00:00:00Z"
NEWEST = [{"field": "QUEUED_AT", "direction": "DESC"}]


async def listed(rig: Rig, **filter: Any) -> list[str]:
    """The ids of the runs that a filter finds."""
    runs = (await rig.ask(RUNS, filter={"from": LONG_AGO, **filter}, orderBy=NEWEST))["runs"]
    assert runs["totalCount"] == len(runs["edges"])
    return [edge["node"]["id"] for edge in runs["edges"]]


def test_every_field_has_a_value_or_a_resolver() -> None:
    """Each object type's fields are resolved by us, or are keys or attributes of what its resolvers give."""
    made = schema()
    plain = {"PageInfo", "RunTraceSpanOutput", "StepError", "UserlandSpan", "FunctionTrigger", "StreamItem", "RunTraceTrigger"}
    plain |= {name for name in made.type_map if name.startswith("ConnectV1") or name.endswith("Edge")}
    by_attribute = {
        "App": {"id", "name", "framework", "url", "checksum"}, "FunctionRunV2": {"id"}, "FunctionRun": {"id"}, "Event": {"id", "name"},
        "EventV2": {"id", "name"}, "SpanMetadata": {"scope", "kind", "values"}, "RunStepInfo": {"type"},
        "WaitForEventStepInfo": {"expression"}, "WaitForSignalStepInfo": {"signal"}, "InvokeStepInfo": set(), "SleepStepInfo": set(),
    }  # fmt: skip
    debug = {"DebugRun", "DebugSession", "CreateDebugSessionResponse"}
    for name, kind in made.type_map.items():
        if isinstance(kind, GraphQLObjectType) and not name.startswith("__") and name not in plain | debug:
            bare = {field for field, one in kind.fields.items() if one.resolve is None}
            assert bare == by_attribute.get(name, set()), name


def test_runs_by_status_function_and_time() -> None:
    """Each filter alone and together; the count is of all that fit."""

    async def main() -> None:
        async with serving(shop()) as rig:
            good = [await rig.ended("shop/sum", {"n": n}) for n in range(3)]
            bad = await rig.ended("shop/breaks")
            waiting = await rig.run_of(await rig.send("shop/signal"))
            await rig.until(lambda: rig.steps(waiting), "the run waits")
            assert await listed(rig) == [waiting, bad, *reversed(good)]
            assert await listed(rig, status=["FAILED"]) == [bad]
            assert await listed(rig, status=["RUNNING", "FAILED"]) == [waiting, bad]
            functions = {f["slug"]: f for f in (await rig.ask("{ functions { id slug name app { id externalID name } } }"))["functions"]}
            assert await listed(rig, functionIDs=[functions["shop-sum"]["id"]]) == good[::-1]
            ids = [functions["shop-sum"]["id"], functions["shop-breaks"]["id"]]
            assert await listed(rig, functionIDs=ids, status=["COMPLETED"]) == good[::-1]
            assert await listed(rig, appIDs=[functions["shop-sum"]["app"]["id"]], status=["FAILED"]) == [bad]
            assert await listed(rig, functionIDs=["00000000-0000-0000-0000-000000000000"]) == []
            assert await listed(rig, until=LONG_AGO) == []
            assert await listed(rig, timeField="ENDED_AT") == [bad, *reversed(good)]
            assert await listed(rig, **{"from": "2100-01-01T00:00:00Z"}) == []
            assert "from is 'soon'" in await rig.refused(RUNS, filter={"from": "soon"}, orderBy=NEWEST)

    work(main)


def test_runs_by_expressions() -> None:
    """Lines over event, output and error; all of them have to hold."""

    async def main() -> None:
        async with serving(shop()) as rig:
            good = [await rig.ended("shop/sum", {"n": n, "who": "ann" if n else "bob"}) for n in range(3)]
            bad = await rig.ended("shop/breaks", {"n": 1})
            assert await listed(rig, query="event.data.n == 1") == [bad, good[1]]
            assert await listed(rig, query="event.data.who == 'ann'\noutput == 6") == [good[2], good[1]]
            assert await listed(rig, query="event.data.who == 'ann'\n\nevent.data.n > 1") == [good[2]]
            assert await listed(rig, query="error.message == 'the function itself'") == [bad]
            assert await listed(rig, query="event.name == 'shop/breaks'", status=["COMPLETED"]) == []
            assert "is not part of" in await rig.refused(RUNS, filter={"from": LONG_AGO, "query": "event.data.n == §"}, orderBy=NEWEST)

    work(main)


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("field", ["QUEUED_AT", "STARTED_AT", "ENDED_AT"])
def test_pages_of_runs(field: str, direction: str) -> None:
    """Every run once, in order, whatever the size of the pages; the count ignores the cursor."""

    async def main() -> None:
        async with serving(shop()) as rig:
            made = [await rig.ended("shop/sum") for _ in range(5)]
            found: list[str] = []
            after = None
            while True:
                runs = (
                    await rig.ask(RUNS, first=2, after=after, filter={"from": LONG_AGO}, orderBy=[{"field": field, "direction": direction}])
                )["runs"]
                found += [edge["node"]["id"] for edge in runs["edges"]]
                assert runs["totalCount"] == 5 and runs["pageInfo"]["startCursor"] == runs["edges"][0]["cursor"]
                after = runs["pageInfo"]["endCursor"]
                if not runs["pageInfo"]["hasNextPage"]:
                    break
            assert found == (made if direction == "ASC" else made[::-1])
            assert "is no cursor" in await rig.refused(RUNS, after="%", filter={"from": LONG_AGO}, orderBy=NEWEST)
            assert "from 1 to" in await rig.refused(RUNS, first=0, filter={"from": LONG_AGO}, orderBy=NEWEST)
            assert "one field" in await rig.refused(RUNS, filter={"from": LONG_AGO}, orderBy=NEWEST * 2)

    work(main)


def test_runs_that_were_never_made() -> None:
    """One that a singleton kept away tells for whose sake; one that a rate limit dropped is none."""

    async def main() -> None:
        async with serving(shop()) as rig:
            first = await rig.run_of(await rig.send("shop/single"))
            event_id = await rig.send("shop/single")
            second = await rig.run_of(event_id)
            shown = await rig.ask("query ($id: String!) { run(runID: $id) { status skipReason skipExistingRunID } }", id=second)
            assert shown["run"] == {"status": "SKIPPED", "skipReason": "SINGLETON", "skipExistingRunID": first}
            assert await listed(rig, status=["SKIPPED"]) == [second] and await listed(rig) == [second, first]
            limited = [await rig.send("shop/limited") for _ in range(3)]
            await rig.until(lambda: rig.node.reader.runs_of_event(limited[2], 1), "the last one is decided")
            shown = await rig.ask("query ($id: ULID!) { eventV2(id: $id) { runs { id } } }", id=limited[2])
            assert shown["eventV2"]["runs"] == [] and len(await listed(rig)) == 3
            assert (await rig.client.get(f"/v1/events/{limited[2]}/runs")).json()["data"] == []

    work(main)


def test_a_batch_is_one_run() -> None:
    """Of several events, in the order in which they came."""

    async def main() -> None:
        async with serving(shop()) as rig:
            events = [await rig.send("shop/batched", {"n": n}) for n in range(2)]
            run_id = await rig.run_of(events[1])
            await rig.end_of(run_id)
            shown = await rig.ask(
                "query ($id: String!) { run(runID: $id) { isBatch batchCreatedAt triggerIDs }"
                " runTrigger(runID: $id) { IDs isBatch batchID payloads } }",
                id=run_id,
            )
            assert shown["run"]["isBatch"] and shown["run"]["triggerIDs"] == shown["runTrigger"]["IDs"] == events
            assert shown["runTrigger"]["batchID"] and [json.loads(one)["data"] for one in shown["runTrigger"]["payloads"]] == [
                {"n": 0},
                {"n": 1},
            ]

    work(main)


def test_what_started_a_run() -> None:
    """Two roots in one document, as the Python suite asks; ids are the internal ones."""

    async def main() -> None:
        async with serving(shop()) as rig:
            event_id = await rig.send("shop/sum", {"n": 1}, id="mine", user={"id": "u"})
            run_id = await rig.run_of(event_id)
            await rig.end_of(run_id)
            data = await rig.ask(
                "query ($id: String!) { run(runID: $id) { output status }"
                " runTrigger(runID: $id) { eventName IDs timestamp payloads isBatch batchID cron } }",
                id=run_id,
            )
            assert data["run"] == {"output": "6", "status": "COMPLETED"}
            trigger = data["runTrigger"]
            assert (trigger["eventName"], trigger["IDs"], trigger["isBatch"], trigger["cron"]) == ("shop/sum", [event_id], False, None)
            (payload,) = map(json.loads, trigger["payloads"])
            assert (payload["id"], payload["name"], payload["data"], payload["user"]) == ("mine", "shop/sum", {"n": 1}, {"id": "u"})
            old = await rig.ask("query ($id: ID!) { functionRun(query: {functionRunId: $id}) { output status } }", id=run_id)
            assert old["functionRun"] == {"output": "6", "status": "COMPLETED"}

    work(main)


EVENTS = """
query ($first: Int! = 50, $after: String, $filter: EventsFilter!) {
  eventsV2(first: $first, after: $after, filter: $filter) {
    edges { node { name id occurredAt receivedAt raw runs { status id startedAt endedAt function { name slug } } } }
    totalCount pageInfo { endCursor hasNextPage startCursor hasPreviousPage }
  }
}
"""


def test_events_of_users_and_of_the_server() -> None:
    """The server's own only where asked; by name, time and expressions; each with its runs."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum", {"n": 1})
            await rig.send("shop/other", {"n": 2})

            async def names(**filter: Any) -> list[str]:
                events = (await rig.ask(EVENTS, filter={"from": LONG_AGO, **filter}))["eventsV2"]
                assert events["totalCount"] == len(events["edges"])
                return [edge["node"]["name"] for edge in events["edges"]]

            assert await names() == ["shop/other", "shop/sum"]
            assert sorted(await names(includeInternalEvents=True)) == ["inngest/function.finished", "shop/other", "shop/sum"]
            assert await names(eventNames=["shop/sum"]) == ["shop/sum"]
            assert await names(query="event.data.n > 1") == ["shop/other"]
            assert await names(until=LONG_AGO) == []
            events = (await rig.ask(EVENTS, first=1, filter={"from": LONG_AGO}))["eventsV2"]
            assert events["pageInfo"]["hasNextPage"] and events["totalCount"] == 2
            events = (await rig.ask(EVENTS, first=1, after=events["pageInfo"]["endCursor"], filter={"from": LONG_AGO}))["eventsV2"]
            (edge,) = events["edges"]
            assert [run["id"] for run in edge["node"]["runs"]] == [run_id] and not events["pageInfo"]["hasNextPage"]
            assert json.loads(edge["node"]["raw"])["data"] == {"n": 1}
            assert edge["node"]["runs"][0]["function"] == {"name": "sum", "slug": "shop-sum"}

            one = await rig.ask(
                "query ($id: ULID!) { eventV2(id: $id) { id idempotencyKey name occurredAt raw receivedAt version"
                " runs { id status function { name } } } }",
                id=edge["node"]["id"],
            )
            assert one["eventV2"]["name"] == "shop/sum" and one["eventV2"]["idempotencyKey"] is None
            old = await rig.ask(
                "query ($id: ID!) { event(query: {eventId: $id}) { id name payload status totalRuns pendingRuns"
                " functionRuns { id status } }"
                " events(query: {}) { id name payload } }",
                id=edge["node"]["id"],
            )
            assert old["event"]["functionRuns"] == [{"id": run_id, "status": "COMPLETED"}]
            assert (old["event"]["totalRuns"], old["event"]["pendingRuns"], old["event"]["status"]) == (1, 0, "COMPLETED")
            assert [(event["name"], event["payload"]) for event in old["events"]] == [("shop/other", '{"n":2}'), ("shop/sum", '{"n":1}')]
            stream = await rig.ask(
                "query { stream(query: {limit: 5, includeInternalEvents: false}) { id trigger type runs { id function { name } } } }"
            )
            assert [(item["trigger"], len(item["runs"])) for item in stream["stream"]] == [("shop/other", 0), ("shop/sum", 1)]

    work(main)


def test_ids_that_are_not_there_are_errors() -> None:
    """Never a bare null (§11.6)."""

    async def main() -> None:
        async with serving(shop()) as rig:
            nobody = "01J00000000000000000000000"
            for query in (
                f'{{ run(runID: "{nobody}") {{ id }} }}',
                f'{{ runTrace(runID: "{nobody}") {{ name }} }}',
                f'{{ runTrigger(runID: "{nobody}") {{ payloads }} }}',
                f'{{ event(query: {{eventId: "{nobody}"}}) {{ id }} }}',
                f'{{ eventV2(id: "{nobody}") {{ id }} }}',
                f'{{ functionRun(query: {{functionRunId: "{nobody}"}}) {{ id }} }}',
                '{ app(id: "x") { id } }',
                '{ functionBySlug(query: {functionSlug: "x"}) { id } }',
                f'{{ workerConnection(connectionId: "{nobody}") {{ id }} }}',
                f'mutation {{ cancelRun(runID: "{nobody}") {{ id }} }}',
                f'mutation {{ rerun(runID: "{nobody}") }}',
                'mutation { deleteAppByName(name: "x") }',
                'mutation { invokeFunction(functionSlug: "x", data: {}) }',
            ):
                assert "no " in await rig.refused(query), query
            sessions = '{ debugRun(query: {functionSlug: "shop-sum"}) { debugTraces { name } } }'
            assert "keeps no debug sessions" in await rig.refused(sessions)

    work(main)


def test_a_run_is_made_again_from_a_step_with_another_input() -> None:
    """What came before the step is kept, what comes after is done anew."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum")
            rerun = "mutation ($id: ULID!, $from: RerunFromStepInput) { rerun(runID: $id, fromStep: $from) }"
            plain = (await rig.ask(rerun, id=run_id))["rerun"]
            assert (await rig.end_of(plain)).output == b"6"
            new = (await rig.ask(rerun, id=run_id, **{"from": {"stepID": "two", "input": "[40]"}}))["rerun"]
            run = await rig.end_of(new)
            assert (run.output, run.origin, run.cause) == (b"44", run_id, "rerun")
            assert [step.name for step in await rig.steps(new)] == ["one", "two", "three"]
            shown = await rig.ask("query ($id: String!) { run(runID: $id) { originalRunID } }", id=new)
            assert shown["run"]["originalRunID"] == run_id
            assert "has no step 'nine'" in await rig.refused(rerun, id=run_id, **{"from": {"stepID": "nine"}})

    work(main)


def test_runs_are_cancelled_and_functions_invoked() -> None:
    """The answer tells what was committed."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.run_of(await rig.send("shop/signal"))
            done = await rig.ask("mutation ($id: ULID!) { cancelRun(runID: $id) { id status endedAt } }", id=run_id)
            assert done["cancelRun"]["status"] == "CANCELLED" and done["cancelRun"]["endedAt"]
            assert await rig.ask('mutation { invokeFunction(functionSlug: "shop-child", data: {x: 1}, user: {id: "u"}) }') == {
                "invokeFunction": True
            }
            run = await rig.until(lambda: listed(rig, status=["COMPLETED"]), "the invoked run ends")
            assert (await rig.run(run[0])).function_id == "shop-child"

    work(main)


def test_apps_are_listed_synced_and_taken_away() -> None:
    """With their functions; an app that goes keeps its runs."""

    async def main() -> None:
        synced: list[str] = []

        async def sync(url: str) -> None:
            synced.append(url)

        async with serving(shop(), sync_url=sync) as rig:
            run_id = await rig.ended("shop/sum")
            (app,) = (await rig.ask("{ apps { id externalID name sdkLanguage sdkVersion url method functionCount functions { slug } } }"))[
                "apps"
            ]
            assert (app["externalID"], app["sdkLanguage"], app["sdkVersion"], app["method"]) == ("shop", "py", "v1", "SERVE")
            assert app["functionCount"] == len(app["functions"]) == len(shop().functions)
            found = await rig.ask('mutation { createApp(input: {url: "http://x"}) { externalID } }')
            assert (found["createApp"]["externalID"], synced) == ("shop", ["http://x"])
            assert "another address" in await rig.refused('mutation { createApp(input: {url: "http://y"}) { id } }')
            assert (await rig.ask("mutation ($id: UUID!) { deleteApp(id: $id) }", id=app["id"]))["deleteApp"] == app["id"]
            assert (await rig.ask("{ functions { slug } }"))["functions"] == []
            run = await rig.ask("query ($id: String!) { run(runID: $id) { status function { slug isArchived } } }", id=run_id)
            assert run["run"]["function"] == {"slug": "shop-sum", "isArchived": True}
        async with serving(shop()) as rig:
            assert "syncs no apps" in await rig.refused('mutation { createApp(input: {url: "http://x"}) { id } }')

    work(main)


def test_metadata_stands_where_it_was_noted() -> None:
    """At the step, the run; scores of a step at the run too; the cost of models' use is estimated, and summed over a step."""

    async def main() -> None:
        async with serving(shop()) as rig:
            run_id = await rig.ended("shop/sum")
            steps = {step.name: step.id for step in await rig.steps(run_id)}
            usage = b'{"request_model":"gpt-4o-mini-2024","input_tokens":1000000,"output_tokens":1000000}'

            def note(scope: str, span: str, kind: str, values: bytes) -> Note:
                return Note(scope=scope, span=span, kind=kind, change="set", values=values)  # type: ignore[arg-type]

            notes = (
                note("run", "", "userland.r", b'{"r":1}'),
                note("step", steps["two"], "inngest.score", b'{"good":{"value":1}}'),
                note("step", steps["two"], "inngest.ai", usage),
                note("step_attempt", f"{steps['two']}/0", "inngest.ai", usage),
                note("step", steps["three"], "inngest.ai", b'{"request_model":"unheard of","input_tokens":1}'),
            )
            await rig.node.submit(MetadataTold(run_id, notes))
            trace = (
                await rig.ask(
                    "query ($id: String!) { run(runID: $id) { trace(preview: true) { metadata { scope kind values updatedAt }"
                    " childrenSpans { name metadata { scope kind values } } } } }",
                    id=run_id,
                )
            )["run"]["trace"]
            assert [(one["scope"], one["kind"]) for one in trace["metadata"]] == [("run", "userland.r"), ("step", "inngest.score")]
            spans = {span["name"]: {one["kind"]: one["values"] for one in span["metadata"]} for span in trace["childrenSpans"]}
            assert spans["one"] == {"userland.n": {"n": 1}}
            assert spans["two"]["inngest.ai"]["estimated_cost"] == pytest.approx(2 * 0.75)
            assert spans["two"]["inngest.ai"]["input_tokens"] == 2_000_000
            assert "estimated_cost" not in spans["three"]["inngest.ai"]

    work(main)


def test_connected_workers() -> None:
    """None without a gateway; with one, what it tells."""

    async def main() -> None:
        node = "id instanceId status sdkLang app { name } functionCount"
        ask = "{ workerConnections { totalCount edges { cursor node { " + node + " } } pageInfo { hasNextPage } } }"
        async with serving(shop()) as rig:
            assert (await rig.ask(ask))["workerConnections"] == {"totalCount": 0, "edges": [], "pageInfo": {"hasNextPage": False}}
        told = {"id": "01J0", "instance_id": "i", "status": 1, "sdk_language": "py", "all_worker_groups": {"shop": "hash"}}
        async with serving(shop(), connections=lambda: [told]) as rig:
            (edge,) = (await rig.ask(ask))["workerConnections"]["edges"]
            assert (edge["node"]["status"], edge["node"]["app"]["name"], edge["node"]["sdkLang"]) == ("READY", "shop", "py")
            one = await rig.ask('{ workerConnection(connectionId: "01J0") { instanceId } }')
            assert one["workerConnection"]["instanceId"] == "i"

    work(main)


def test_documents_that_are_too_much_or_wrong() -> None:
    """Errors in GraphQL's form with 200; what is no request at all is 400."""

    async def main() -> None:
        async with serving(shop()) as rig:
            assert "Syntax Error" in await rig.refused("{ run(")
            assert "Cannot query field" in await rig.refused("{ nothing }")
            assert "$id" in await rig.refused("query ($id: String!) { run(runID: $id) { id } }")
            deep = "childrenSpans { " * 30 + "name" + " }" * 30
            assert "nested" in await rig.refused('{ runTrace(runID: "x") { ' + deep + " } }")
            assert "queries at once" in await rig.refused("{ " + " ".join(f"a{n}: apps {{ id }}" for n in range(51)) + " }")
            bomb = "query { apps { ...f0 } } " + " ".join(
                f"fragment f{n} on App {{ " + " ".join(f"a{m}: functions {{ app {{ ...f{n + 1} }} }}" for m in range(9)) + " }"
                for n in range(9)
            )
            assert "fields; at most" in await rig.refused(bomb + " fragment f9 on App { id }")
            assert "contains itself" in await rig.refused("{ apps { ...f } } fragment f on App { functions { app { ...f } } }")
            assert "more than" in await rig.refused("{ apps { id } } #" + "x" * 300_000)
            assert "nested too deep" in await rig.refused("{" + "a{" * 20_000)
            headers = {"content-type": "application/json"}
            for body in (b"nothing", b"[]", b"{}"):
                response = await rig.client.post("/v0/gql", content=body, headers=headers)
                assert response.status_code == 400 and response.json()["errors"][0]["message"].startswith("the body must be")
            response = await rig.client.post("/v0/gql", content=b'{"query":"{ apps { id } }"}', headers={"content-type": "text/plain"})
            assert response.status_code == 415
            many = {"query": "query A { apps { name } } query B { functions { slug } }", "operationName": "A"}
            assert list((await rig.client.post("/v0/gql", json=many)).json()["data"]) == ["apps"]

    work(main)


def test_lists_within_lists_are_bounded() -> None:
    """What multiplies is cut off with a sentence, before it costs much."""

    async def main() -> None:
        async with serving(shop()) as rig:
            inner = "slug"
            for _ in range(6):
                inner = "slug app { functions { " + inner + " } }"
            assert "more than 50000 things" in await rig.refused("{ functions { " + inner + " } }")
            run_id = await rig.ended("shop/sum")
            traces = " ".join(
                f'a{n}: run(runID: "{run_id}") {{ a: trace {{ name }} b: trace {{ name }} c: trace {{ name }} }}' for n in range(50)
            )
            assert "more than 50000 things" in await rig.refused("{ " + traces + " }")

    work(main)


def test_a_server_with_keys_asks_for_one() -> None:
    """The signing key or the admin token, as a bearer."""

    async def main() -> None:
        keys = Keys(event_keys=("e",), signing_key="signkey-test-12ab", admin_token="admin")
        async with serving(shop(), keys, "cloud") as rig:
            for token, status in ((None, 401), ("wrong", 401), ("admin", 200), ("signkey-test-12ab", 200)):
                headers = {} if token is None else {"authorization": f"Bearer {token}"}
                response = await rig.client.post("/v0/gql", json={"query": "{ apps { name } }"}, headers=headers)
                assert response.status_code == status, token

    work(main)


def test_introspection_is_answered() -> None:
    """Tools read the schema."""

    async def main() -> None:
        async with serving(shop()) as rig:
            types = (await rig.ask(get_introspection_query()))["__schema"]["types"]
            assert {"RunTraceSpan", "FunctionRunV2", "StepInfo"} <= {one["name"] for one in types}

    work(main)
