// The list of runs: newest first, filtered, a page at a time.

import { ask } from "./api.js";
import { h, moment, status, took } from "./dom.js";

const STATUSES = ["queued", "running", "waiting", "completed", "failed", "cancelled", "skipped"];
const filter = { status: "", function: "", cursor: null };

export async function runsPage(refresh) {
  const query = new URLSearchParams({ limit: "50" });
  for (const [name, value] of Object.entries(filter)) if (value) query.set(name, value);
  const [{ runs, cursor }, { functions }] = await Promise.all([ask(`/api/runs?${query}`), ask("/api/functions")]);
  const choose = (name, label, options) => h("select", { "aria-label": label, onchange: (event) => {
    filter[name] = event.target.value;
    filter.cursor = null;
    refresh();
  } }, h("option", { value: "" }, label), options.map(([value, text]) => h("option", { value, selected: filter[name] === value }, text)));
  const bar = h("div", { class: "bar" },
    h("h1", { class: "grow" }, "Runs"),
    choose("status", "Any status", STATUSES.map((word) => [word, word[0].toUpperCase() + word.slice(1)])),
    choose("function", "Any function", functions.map((one) => [one.id, one.id])));
  return h("div", {}, bar, runs.length ? table(runs) : empty(functions), pages(cursor, refresh));
}

function table(runs) {
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Status", "Function", "Run", "Trigger", "Queued", "Duration"].map((name) => h("th", {}, name)))),
    h("tbody", {}, runs.map((run) => h("tr", {},
      h("td", {}, status(run.status)),
      h("td", {}, run.function.name),
      h("td", { class: "mono" }, h("a", { href: `#/runs/${run.id}` }, run.id)),
      h("td", {}, run.trigger.name, run.origin ? h("span", { class: "dim" }, " (rerun)") : null),
      h("td", {}, moment(run.queued_ms)),
      h("td", {}, run.ended_ms ? took(run.ended_ms - run.queued_ms) : "–"))))));
}

function empty(functions) {
  const filtered = filter.status || filter.function || filter.cursor;
  if (filtered) return h("div", { class: "empty" }, "No run fits the filter.");
  return h("div", { class: "empty" },
    h("p", {}, functions.length ? "No runs yet. Send an event:" : "No app is known yet. Start one with:"),
    h("pre", {}, functions.length ? `stepwell send ${functions[0].triggers[0] ?? "app/hello"} '{"x":1}'` : "stepwell dev app.py\nstepwell dev -u http://localhost:3000/api/inngest"));
}

function pages(cursor, refresh) {
  const go = (to) => () => { filter.cursor = to; refresh(); };
  return h("div", { class: "bar" },
    filter.cursor ? h("button", { type: "button", onclick: go(null) }, "Newest") : null,
    cursor ? h("button", { type: "button", onclick: go(cursor) }, "Older") : null);
}
