// The apps: which are known, how their last sync went, one more, one less.

import { ask } from "./api.js";
import { h, moment, problem } from "./dom.js";

export async function appsPage(refresh) {
  const { apps, not_synced } = await ask("/api/apps");
  const outcome = h("div", { role: "status" });
  const act = (what) => async () => {
    outcome.replaceChildren();
    try { await what(); refresh(); } catch (error) { outcome.replaceChildren(problem(error)); }
  };
  const path = (app) => `/api/apps/${encodeURIComponent(app.name)}`;
  const remove = (app) => act(async () => {
    if (confirm(`Remove ${app.name}? Nothing starts its functions any more; runs that have begun go on.`)) await ask(path(app), undefined, "DELETE");
  });
  const row = (app) => h("tr", {},
    h("td", {}, app.name),
    h("td", { class: "mono" }, app.url || app.driver),
    h("td", {}, String(app.functions)),
    h("td", {}, app.sdk),
    h("td", {}, app.error ? h("span", { class: "error" }, `${moment(app.error_ms)}: ${app.error}`) : moment(app.synced_ms)),
    h("td", {}, app.driver === "http" ? h("button", { type: "button", onclick: act(() => ask(`${path(app)}/sync`, "")) }, "Sync") : null, " ",
      h("button", { type: "button", onclick: remove(app) }, "Remove")));
  const table = h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["App", "URL", "Functions", "SDK", "Last sync", ""].map((name) => h("th", {}, name)))),
    h("tbody", {}, apps.map(row))));
  const url = h("input", { id: "url", type: "url", required: true, placeholder: "http://localhost:3000/api/inngest" });
  const add = async (event) => { event.preventDefault(); await act(() => ask("/api/apps", { url: url.value }))(); };
  return h("div", {}, h("h1", {}, "Apps"),
    apps.length ? table : h("div", { class: "empty" }, h("p", {}, "No app is known yet. Give its URL here, or start one with:"), h("pre", {}, "stepwell dev app.py")),
    not_synced.map((one) => h("p", { class: "error" }, `${one.url} could not be synced: ${one.error}`)),
    h("form", { onsubmit: add }, h("label", { for: "url" }, "URL of an app"), url,
      h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Add"))), outcome);
}
