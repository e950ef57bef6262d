"""What the table's rows are, and what each SDK does not have.

A capability has an id that cases name, a title for people, and the section of the protocol's description that it comes from. The table
also tells where this server differs from the reference server by choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Capability:
    """A row of the table."""

    id: str
    title: str
    section: str


CAPABILITIES = (
    Capability("sync", "Registration when the server asks", "3.1"),
    Capability("sync-in-band", "Registration in band: in the answer to a signed request", "3.2"),
    Capability("sync-config", "Every function setting is accepted", "3.4"),
    Capability("sync-change", "A changed set of functions replaces the old one", "3.1"),
    Capability("signed", "Signed calls and answers, keys asked for", "1.4"),
    Capability("fallback-key", "A signing key is rotated with the fallback key", "1.4"),
    Capability("run", "`step.run`: once each, results kept", "5.1"),
    Capability("values", "Values come back as they were", "4.3"),
    Capability("repeated", "The same step id several times", "4.2"),
    Capability("stepless", "A function without steps", "4.4"),
    Capability("sleep", "`step.sleep`, `step.sleep_until`", "5.2"),
    Capability("send", "`step.send_event`, one and many", "5.1"),
    Capability("parallel", "Parallel steps, joined", "4.6"),
    Capability("race", "Parallel steps, the first of which goes on", "4.6"),
    Capability("wait", "`step.wait_for_event`, with condition and timeout", "5.3"),
    Capability("invoke", "`step.invoke`: results, errors, timeouts", "5.4"),
    Capability("invoke-app", "`step.invoke` of another app's function", "5.4"),
    Capability("infer", "`step.ai.infer`", "5.6"),
    Capability("step-retry", "A failing step is tried again, its last error can be caught", "4.7"),
    Capability("function-retry", "A failing function is tried again, its error is kept word for word", "4.7"),
    Capability("final", "Errors that are not tried again", "4.7"),
    Capability("no-json", "A result that is no JSON fails", "4.4"),
    Capability("retry-after", "Errors that say when to try again", "4.8"),
    Capability("on-failure", "Failure handlers", "3.5"),
    Capability("trigger", "Event triggers: names, wildcards, conditions, several", "2.5"),
    Capability("cron", "Cron triggers", "3.4"),
    Capability("delayed", "Events with a time in the future", "2.1"),
    Capability("event-id", "Event ids and seeds: sent twice, run once", "2.3"),
    Capability("event-many", "Many events in one request", "2.1"),
    Capability("event-refused", "Events that are refused", "2.1"),
    Capability("system-events", "`inngest/function.finished`, `.failed`, `.cancelled`, `.invoked`", "6"),
    Capability("cancel", "Cancellation by event, by API, in bulk", "11.3"),
    Capability("concurrency", "`concurrency`: calls of a key at a time", "11.3"),
    Capability("throttle", "`throttle`: starts over time, the others wait", "11.3"),
    Capability("rate-limit", "`rateLimit`, `idempotency`: what comes too often is dropped", "11.3"),
    Capability("debounce", "`debounce`: the last event starts the run", "11.3"),
    Capability("batch", "`batchEvents`: one run for several events", "11.3"),
    Capability("priority", "`priority`: which queued run is next", "11.3"),
    Capability("singleton", "`singleton`: skip the new run, or cancel the old one", "11.3"),
    Capability("timeouts", "`timeouts.start`, `timeouts.finish`", "11.3"),
    Capability("rerun", "A run is run again", "11.3"),
    Capability("streaming", "Answers as a stream that keeps the connection alive", "4.9"),
    Capability("large", "State beyond 4 MiB is fetched; what is too large fails", "4.10"),
    Capability("serial", "Steps in a row: the number of calls", "4.12"),
    Capability("parallel-calls", "Parallel steps: the number of calls", "4.12"),
    Capability("parallel-choice", "`optimizeParallelism`: parallel steps joined or not", "4.6"),
    Capability("checkpoint", "Steps saved while a call goes on", "5.12"),
    Capability("superseded", "A call that was given up stops at its next checkpoint", "5.12"),
    Capability("signal", "`step.waitForSignal`, `step.sendSignal`", "5.5"),
    Capability("fetch", "`step.fetch`", "5.7"),
    Capability("infer-gemini", "`step.ai.infer` with Gemini", "5.6"),
    Capability("realtime", "Publishing from functions", "5.11"),
    Capability("wrap", "`step.ai.wrap`, and the input of steps", "5.1"),
    Capability("match", "`match`: a field in which two events are equal", "5.3"),
    Capability("error-shape", "A step's error: class, name, message, cause", "5.9"),
    Capability("too-long", "A sleep of more than a year is refused", "5.2"),
    Capability("middleware", "Dependency injection by middleware", "4"),
    Capability("experiment", "`group.experiment`", "5.1"),
    Capability("sessions", "Sessions are handed on", "2.1"),
    Capability("jitter", "Cron triggers with a zone and `jitter`", "3.4"),
    Capability("send-outside", "Sending outside of a step", "2.2"),
    Capability("lost", "An app that dies in a call is called again", "4.7"),
)


@dataclass(frozen=True)
class Beside:
    """What is tested with servers and apps of its own, beside the rigs. `sdks`: the unmodified SDKs that take part."""

    id: str
    title: str
    section: str
    sdks: str
    module: str


BESIDE = (
    Beside(
        "connect",
        "Connect: routing, capacities, leases, drain; workers, servers and networks that die or stand still",
        "9",
        "PyPI 0.5.19, npm 4.24.0",
        "test_connect",
    ),
    Beside(
        "endpoint",
        "Durable endpoints, their output and streams; deferred functions; checkpoints counted",
        "5.10, 5.12, 5.13",
        "npm 4.24.0",
        "test_endpoints",
    ),
    Beside(
        "subscribe",
        "Realtime: tokens, publishing, streams, subscriptions by WebSocket and server-sent events",
        "5.11",
        "npm 3.54.2 with `@inngest/realtime`, npm 4.24.0, PyPI 0.5.19",
        "test_realtime",
    ),
    Beside("gateway", "Requests of steps: keys kept nowhere, failures, publishing", "5.6, 5.7", "PyPI 0.5.19, npm 4.24.0", "test_gateway"),
    Beside("graphql", "GraphQL as the SDKs' own suites ask it", "8", "PyPI 0.5.19, PyPI 0.5.0", "test_graphql"),
    Beside("shapes", "Answers in every shape, allowed or not", "4.4 to 4.10", "none: a scripted app", "test_raw_shapes"),
)

FEW = frozenset({"sync", "run", "sleep", "send", "parallel", "step-retry", "final", "on-failure", "wait", "signed"})
"""What `make test` runs with rigs that have a neighbour which runs everything."""

SERVED = frozenset({"sync", "run", "parallel", "final"})
"""What `make test` runs with rigs that differ from a neighbour by how they are served, or by an older version."""

DEV_LACKS = MappingProxyType(dict.fromkeys(("signed", "fallback-key", "sync-in-band"), "this column is of development mode"))
"""Of a rig without keys."""

PYTHON_LACKS = MappingProxyType(
    {
        "signal": "the SDK has no signals",
        "fetch": "the SDK has no `step.fetch`",
        "infer-gemini": "not tried: the same op as with other providers",
        "wrap": "the SDK has no `step.ai.wrap`, and does not tell its steps' inputs",
        "error-shape": "the SDK tells no causes of errors",
        "match": "the SDK takes conditions as expressions only",
        "checkpoint": "the SDK does not checkpoint",
        "superseded": "the SDK does not checkpoint",
        "parallel-choice": "the SDK has no `optimizeParallelism`",
        "experiment": "the SDK has no `group.experiment`",
        "sessions": "the SDK does not hand sessions on",
        "defer": "the SDK has no deferred functions",
        "endpoint": "the SDK has no durable endpoints",
    }
)
"""Of every version of the Python SDK."""

PYTHON_OLD_LACKS = MappingProxyType(
    {
        **PYTHON_LACKS,
        "race": "this version has no `parallel_mode`",
        "realtime": "this version has no `inngest.experimental.realtime`",
        "timeouts": "this version has no `timeouts`",
        "jitter": "this version has no `jitter`",
    }
)
"""Of the version of a year earlier."""

NO_STREAMING = MappingProxyType({"streaming": "the SDK does not stream with this framework"})

CONNECT_LACKS = MappingProxyType(
    {
        "sync": "a connected app registers with its connection",
        "lost": "tested with the connection itself, in `test_connect.py`",
        "streaming": "a connection is kept alive by other means",
        "serial": "calls over a connection are not counted",
        "parallel-calls": "calls over a connection are not counted",
    }
)
"""Of a rig whose app connects to the server."""

NPM_LACKS = MappingProxyType({"no-json": "the SDK leaves out what JSON has not"})
"""Of npm's major version 4."""

NPM_3_LACKS = MappingProxyType(
    {
        **NPM_LACKS,
        "superseded": "this version goes on until its call ends",
        "experiment": "this version has no `group.experiment`",
        "jitter": "this version does not register `jitter`",
        "sessions": "this version does not hand sessions on",
    }
)
"""Of npm's major version 3."""


@dataclass(frozen=True)
class Difference:
    """Something that the reference server does otherwise, and why this server does not."""

    subject: str
    reference: str
    here: str


DIFFERENCES = (
    Difference(
        "An invoked function that is cancelled",
        "The step's result is the system event that tells of the end, as if it were data.",
        "The step fails with `InngestInvokeCancelledError`, which names the run.",
    ),
    Difference(
        "The end of a run",
        "Its status may be read a moment before its output.",
        "Status, output, freed limits, answered invokers and the lifecycle events are one commit.",
    ),
    Difference(
        "An answer that has nothing to do, and nothing else of the run under way",
        "The run stays as it is, for ever.",
        "The attempt fails with `NothingToDo`; the run fails when its attempts are used up.",
    ),
    Difference(
        "Whole numbers beyond 2^53 in a signed call",
        "The call is sent, and an app that parses it before it checks the signature refuses it.",
        "The run fails with `UnsafeInteger` and a sentence that says to send the number as a string.",
    ),
    Difference(
        "New runs of a paused function",
        "They are skipped.",
        "They queue, and begin when the function is resumed. Runs that are under way finish their step.",
    ),
    Difference(
        "`rateLimit`",
        "A bucket that refills evenly over the period (GCRA).",
        "A window that the first run begins: so many runs in it, and what comes beyond is recorded as skipped, with the reason.",
    ),
    Difference(
        "Runs that are invoked, scheduled or run again, of a function with `debounce` or `batchEvents`",
        "Not told.",
        "They begin at once, by themselves: there is no other event to wait for.",
    ),
    Difference(
        "The page and its API",
        "Open to whoever reaches them.",
        "`stepwell start` asks for the admin token; `stepwell dev` listens on this machine only.",
    ),
)
