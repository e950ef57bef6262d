// The list of queues: what waits, what is out, who consumes them.

import { ask } from "./api.js";
import { h } from "./dom.js";

const place = { cursor: "" };

export async function queuesPage(refresh) {
  const { queues, cursor } = await ask(`/api/queues?${new URLSearchParams({ limit: "100", cursor: place.cursor })}`);
  const go = (to) => () => { place.cursor = to; refresh(); };
  const first = place.cursor === "";
  return h("div", {}, h("h1", {}, "Queues"),
    queues.length || !first ? table(queues) : h("div", { class: "empty" }, h("p", {}, "No queue yet. A queue is there from its first message on, or from the sync of its consumer:"),
      h("pre", {}, "stepwell queues send jobs '{\"report\": 7}'")),
    h("div", { class: "bar" },
      first ? null : h("button", { type: "button", onclick: go("") }, "First"),
      cursor ? h("button", { type: "button", onclick: go(cursor) }, "More") : null));
}

function table(queues) {
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Queue", "Waiting", "Out", "Consumer", "Dead letters to"].map((name) => h("th", {}, name)))),
    h("tbody", {}, queues.map((queue) => h("tr", {},
      h("td", {}, linkTo(queue.name), queue.paused ? h("span", { class: "cancelled" }, " paused") : null),
      h("td", { class: "number" }, queue.waiting.toLocaleString()),
      h("td", { class: "number" }, queue.messages_out.toLocaleString()),
      h("td", {}, consumerText(queue)),
      h("td", {}, deadLetterOf(queue) ? linkTo(deadLetterOf(queue)) : "–"))))));
}

export function linkTo(queue) {
  return h("a", { href: `#/queues/${encodeURIComponent(queue)}` }, queue);
}

export function consumerText({ consumer }) {
  if (!consumer) return "– (pulled, or nobody)";
  return `${consumer.function}: ${consumer.kind === "runs" ? "a run each" : `batches of ${consumer.max_batch_size}, or after ${consumer.max_batch_timeout}`}`;
}

export function deadLetterOf({ consumer, dead_letter }) {
  return consumer ? consumer.dead_letter : dead_letter;
}
