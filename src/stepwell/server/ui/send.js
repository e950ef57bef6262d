// The form that sends an event, and the runs it started.

import { ask } from "./api.js";
import { h, problem } from "./dom.js";

export async function sendPage() {
  const name = h("input", { id: "name", type: "text", required: true, placeholder: "shop/order.paid" });
  const data = h("textarea", { id: "data", spellcheck: "false" }, "{}");
  const outcome = h("div", { role: "status" });
  const submit = async (event) => {
    event.preventDefault();
    outcome.replaceChildren();
    try {
      let value;
      try { value = JSON.parse(data.value); } catch (error) { throw new Error(`The data is not JSON: ${error.message}`); }
      const { ids } = await ask("/api/events", { name: name.value, data: value });
      const { runs } = await ask(`/api/events/${ids[0]}/runs`);
      outcome.replaceChildren(h("p", {}, `Stored as ${ids[0]}. `, runs.length ? "It started:" : "No function is triggered by it."),
        h("ul", {}, runs.map((run) => h("li", {}, h("a", { href: `#/runs/${run.id}` }, `${run.function.name} ${run.id}`)))));
    } catch (error) {
      outcome.replaceChildren(problem(error));
    }
  };
  return h("form", { onsubmit: submit }, h("h1", {}, "Send an event"),
    h("label", { for: "name" }, "Name"), name, h("label", { for: "data" }, "Data (JSON)"), data,
    h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Send")), outcome);
}

export function loginPage(again) {
  const token = h("input", { id: "token", type: "password", autocomplete: "current-password" });
  const outcome = h("div", {});
  const submit = async (event) => {
    event.preventDefault();
    try { await ask("/api/login", { token: token.value }); again(); } catch (error) { outcome.replaceChildren(problem(error)); }
  };
  return h("form", { onsubmit: submit }, h("h1", {}, "Log in"), h("label", { for: "token" }, "Admin token"), token,
    h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Log in")), outcome);
}
