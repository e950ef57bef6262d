// A run: what it is, its trace as a waterfall, and the chosen step in detail.

import { ask } from "./api.js";
import { h, json, moment, status, took } from "./dom.js";

export async function runPage(runId, chosen, refresh) {
  const trace = await ask(`/api/runs/${encodeURIComponent(runId)}`);
  const { run, now_ms } = trace;
  const act = (what) => async () => {
    if (what === "cancel" && !confirm("End this run? Steps under way are not interrupted; their results are discarded.")) return;
    const answer = await ask(`/api/runs/${run.id}/${what}`, "");
    if (what === "rerun") location.hash = `#/runs/${answer.run_id}`;
    else refresh();
  };
  const head = h("div", { class: "bar" },
    h("h1", { class: "grow" }, status(run.status), " ", run.function.name),
    run.ended_ms === null ? h("button", { type: "button", onclick: act(run.paused_by ? "resume" : "pause") }, run.paused_by ? "Resume" : "Pause") : null,
    run.ended_ms === null ? h("button", { type: "button", onclick: act("cancel") }, "Cancel") : null,
    h("button", { type: "button", onclick: act("rerun") }, "Rerun"));
  const fact = (name, ...value) => h("div", {}, h("span", { class: "dim" }, name), h("span", {}, ...value));
  const facts = h("div", { class: "facts" },
    fact("Run", h("span", { class: "mono" }, run.id)),
    fact("Trigger", run.trigger.name),
    fact("Queued", moment(run.queued_ms)),
    fact("Started", moment(run.started_ms)),
    fact("Duration", took((run.ended_ms ?? now_ms) - run.queued_ms)),
    run.origin && run.trigger.event_id ? fact("Origin", h("a", { href: `#/runs/${run.origin}` }, run.origin)) : null,
    run.paused_by ? fact("Paused by", run.paused_by) : null,
    run.cancelled_by ? fact("Cancelled by", run.cancelled_by) : null);
  return h("div", {}, head, facts, h("div", { class: "split" }, waterfall(trace, chosen), detail(trace, chosen)));
}

function waterfall({ run, steps, attempts, now_ms }, chosen) {
  const begin = run.queued_ms;
  const whole = Math.max(1, (run.ended_ms ?? now_ms) - begin);
  const place = (from, to) => `left:${(100 * (from - begin)) / whole}%;width:${(100 * Math.max(0, to - from)) / whole}%`;
  const row = (link, name, word, queued, started, ended, kind = "") => h("button", {
    type: "button", class: `row ${kind}`, "aria-current": String(link === chosen), onclick: () => { location.hash = `#/runs/${run.id}${link ? `/${link}` : ""}`; },
  },
    h("span", { class: "name", title: name }, name),
    h("span", { class: `track ${word}` },
      started > queued ? h("i", { class: "delay", style: place(queued, started) }) : null,
      h("i", { style: place(started, ended) })),
    h("span", { class: "took" }, took(ended - started)));
  const tried = (owner, one, name) => row(`${owner}~${one.attempt}-${one.started_ms}`, `${name} ${one.kind === "lost" ? "lost" : `attempt ${one.attempt + 1}`}`,
    one.kind === "lost" ? "lost" : "failed", one.started_ms, one.started_ms, one.ended_ms, "attempt");
  return h("div", { class: "trace", "aria-label": "Trace" },
    row("", "Run", run.status, run.queued_ms, run.started_ms ?? run.queued_ms, run.ended_ms ?? now_ms),
    attempts.map((one) => tried("run", one, "Function")),
    steps.map((step) => [
      row(step.id, step.name, step.status, step.queued_ms, step.started_ms ?? step.queued_ms, step.ended_ms ?? now_ms),
      step.attempts.map((one) => tried(step.id, one, "")),
    ]));
}

function detail({ run, steps, attempts, now_ms }, chosen) {
  if (!chosen) {
    return h("aside", { class: "detail" },
      run.error ? failure("Error", run.error) : null,
      run.status === "completed" ? json("Output", run.output) : null,
      run.events.map((event) => json(run.events.length > 1 ? `Event ${event.key}` : "Event", event)));
  }
  const [owner, attemptName] = chosen.split("~");
  const step = steps.find((one) => one.id === owner);
  if (attemptName) {
    const one = (step?.attempts ?? attempts).find((other) => `${other.attempt}-${other.started_ms}` === attemptName);
    if (!one) return h("aside", { class: "detail" }, "This attempt is not there any more.");
    return h("aside", { class: "detail" },
      h("h1", {}, `${step?.name ?? "Function"}: ${one.kind === "lost" ? "lost call" : `attempt ${one.attempt + 1}`}`),
      h("p", { class: "dim" }, `${moment(one.started_ms)}, ${took(one.ended_ms - one.started_ms)}`), failure("Error", one.error));
  }
  if (!step) return h("aside", { class: "detail" }, "This step is not there.");
  return h("aside", { class: "detail" },
    h("h1", {}, status(step.status), " ", step.name),
    h("p", { class: "dim" }, `${step.op}, ${step.tries || 0} ${step.tries === 1 ? "try" : "tries"}; queued ${moment(step.queued_ms)}, took ${took((step.ended_ms ?? now_ms) - (step.started_ms ?? step.queued_ms))}`),
    step.error ? failure("Error", step.error) : null,
    step.input !== null ? json("Input", step.input) : null,
    step.ended_ms !== null && !step.error ? json("Output", step.output) : null);
}

function failure(title, error) {
  return h("section", {}, h("h2", {}, title),
    h("p", { class: "error" }, `${error?.name ?? "Error"}: ${error?.message ?? JSON.stringify(error)}`),
    error?.stack ? h("pre", {}, error.stack) : null);
}
