// A queue: how it stands, its messages and dead letters, and what one does with them.

import { ask } from "./api.js";
import { h, json, moment, problem } from "./dom.js";
import { consumerText, deadLetterOf, linkTo } from "./queues.js";

const PAGE = 50;
// What one looks at: which queue, the condition, the place in the list, what is ticked, and what the last action said.
let view = {};

export async function queuePage(name, chosen, refresh) {
  if (view.name !== name) view = { name, where: "", cursor: "", ticked: new Set(), told: null };
  const path = `/api/queues/${encodeURIComponent(name)}`;
  const query = new URLSearchParams({ limit: String(PAGE), cursor: view.cursor, where: view.where });
  const [queue, { messages, cursor }, message] = await Promise.all([
    ask(path),
    ask(`${path}/messages?${query}`).catch((error) => ({ messages: [], cursor: null, told: (view.told = problem(error)) })),
    chosen ? ask(`${path}/messages/${chosen}`).catch(() => null) : undefined,
  ]);
  for (const id of view.ticked) if (!messages.some((one) => one.id === id)) view.ticked.delete(id);
  // What went wrong is told in place: nothing that was typed is lost.
  const act = (what) => async (event) => {
    event?.preventDefault();
    const told = document.getElementById("told");
    told.replaceChildren();
    try { view.told = await what() ?? null; } catch (error) { told.replaceChildren(problem(error)); return; }
    document.activeElement?.blur();
    refresh();
  };
  return h("div", {},
    head(queue, path, act), facts(queue), h("div", { role: "status", id: "told" }, view.told), forms(queue, path, act),
    h("div", { class: chosen ? "split" : "" }, list(queue, path, messages, cursor, chosen, act, refresh), chosen ? detail(queue, path, message, act) : null));
}

function head(queue, path, act) {
  const purge = async () => {
    if (!confirm(`Take away all ${queue.waiting} messages that wait in ${queue.name}? What is out with a consumer may come back.`)) return null;
    const { purged } = await ask(`${path}/purge`, "");
    return `${count(purged)} taken away.`;
  };
  return h("div", { class: "bar" },
    h("h1", { class: "grow" }, queue.name, queue.paused ? h("span", { class: "cancelled" }, " paused") : null),
    h("button", { type: "button", onclick: act(() => ask(`${path}/${queue.paused ? "resume" : "pause"}`, "").then(() => null)) }, queue.paused ? "Resume" : "Pause"),
    h("button", { type: "button", onclick: act(purge) }, "Purge"));
}

function facts(queue) {
  const fact = (name, ...value) => h("div", {}, h("span", { class: "dim" }, name), h("span", {}, ...value));
  const consumer = queue.consumer;
  const batches = consumer?.kind === "batches";
  return h("div", { class: "facts" },
    fact("Waiting", `${count(queue.waiting)}, ${queue.waiting_bytes.toLocaleString()} bytes`),
    fact("Out", queue.deliveries_out ? `${count(queue.messages_out)} in ${queue.deliveries_out} ${queue.deliveries_out === 1 ? "batch" : "batches"}, since ${moment(Math.min(...queue.deliveries.map((one) => one.out_since_ms)))}` : "nothing"),
    fact("Consumer", consumerText(queue)),
    batches ? fact("At a time", `${consumer.max_concurrency} batches`) : null,
    consumer && !batches ? null : fact("Retries", String(consumer?.max_retries ?? queue.max_retries), batches && consumer.retry_delay !== "0s" ? ` after ${consumer.retry_delay}` : null),
    fact("Dead letters to", deadLetterOf(queue) ? linkTo(deadLetterOf(queue)) : "– (dropped)"),
    consumer ? null : fact("Hidden when pulled", queue.visibility),
    fact("Kept for", queue.retention));
}

function forms(queue, path, act) {
  const body = h("textarea", { id: "body", spellcheck: "false" }, "{}");
  const text = h("input", { id: "as-text", type: "checkbox" });
  const delay = h("input", { id: "delay", type: "text", placeholder: "10s" });
  const send = async () => {
    const { id } = await ask(`${path}/messages`, request(body.value, text.checked ? "text" : "json", delay.value ? { delay: delay.value } : {}));
    return `Message ${id} is sent.`;
  };
  const pulled = !queue.consumer;
  const setting = (id, label, value) => [h("label", { for: id }, label), h("input", { id, type: "text", value })];
  const retention = setting("retention", "Kept for", queue.retention);
  const visibility = setting("visibility", "Hidden when pulled", queue.visibility);
  const retries = setting("max-retries", "Retries", String(queue.max_retries));
  const letters = setting("dead-letter", "Dead letters to (empty: they are dropped)", queue.dead_letter);
  const set = async () => {
    const told = { retention: retention[1].value };
    if (pulled) Object.assign(told, { visibility: visibility[1].value, max_retries: Number(retries[1].value), dead_letter: letters[1].value });
    await ask(`${path}/settings`, told);
    return "The settings hold from now on.";
  };
  return h("div", { class: "bar top" },
    h("details", {}, h("summary", {}, "Send a message"), h("form", { onsubmit: act(send) },
      h("label", { for: "body" }, "Body"), body,
      h("label", { for: "as-text" }, text, " as a text, not JSON"),
      h("label", { for: "delay" }, "Delay"), delay,
      h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Send")))),
    h("details", {}, h("summary", {}, "Settings"), h("form", { onsubmit: act(set) },
      retention, pulled ? [visibility, retries, letters] : h("p", { class: "dim" }, "The rest is told by the consumer's app."),
      h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Set")))));
}

function list(queue, path, messages, cursor, chosen, act, refresh) {
  const where = h("input", { id: "where", type: "text", value: view.where, placeholder: "message.error.name == 'Timeout'", spellcheck: "false" });
  const filter = (event) => { event.preventDefault(); where.blur(); Object.assign(view, { where: where.value.trim(), cursor: "", told: null }); refresh(); };
  const go = (to) => () => { view.cursor = to; refresh(); };
  const letters = messages.some((one) => one.dead_of);
  const ticked = h("span", { class: "dim grow", id: "ticked" });
  const buttons = [];
  const onTick = () => {
    ticked.textContent = view.ticked.size ? `${view.ticked.size} ticked` : "";
    for (const button of buttons) button.disabled = view.ticked.size === 0;
  };
  const tick = (one) => h("input", { type: "checkbox", "aria-label": `Tick ${one.id}`, checked: view.ticked.has(one.id), onchange: (event) => {
    if (event.target.checked) view.ticked.add(one.id); else view.ticked.delete(one.id);
    onTick();
  } });
  const some = (what) => async () => {
    const answer = await ask(`${path}/messages/${what}`, { ids: [...view.ticked] });
    view.ticked.clear();
    return result(what, answer[DONE[what]]);
  };
  const all = (what, condition) => async () => {
    const meant = view.where || "all dead letters";
    if (!confirm(`${what === "move" ? "Send back" : "Delete"} every message for which this holds, on all pages?\n\n${meant}`)) return null;
    let many = 0;
    let at = "";
    do {
      const answer = await ask(`${path}/messages/${what}`, { where: condition, cursor: at });
      many += answer[DONE[what]];
      at = answer.cursor;
    } while (at);
    view.cursor = "";
    return result(what, many);
  };
  const button = (name, what) => h("button", { type: "button", onclick: act(what) }, name);
  if (letters) buttons.push(button("Send back", some("move")));
  buttons.push(button("Delete", some("delete")));
  onTick();
  const meant = view.where || "message.dead_of != null";
  const row = (one) => h("tr", { "aria-current": String(one.id === chosen) },
    h("td", {}, tick(one)),
    h("td", { class: "mono" }, h("a", { href: `#/queues/${encodeURIComponent(queue.name)}/${one.id}`, title: one.id }, `${one.id.slice(0, 8)}…${one.id.slice(-4)}`)),
    h("td", {}, moment(one.sent_ms)),
    h("td", { class: "number" }, String(one.attempts)),
    h("td", { class: "preview" }, h("span", { class: "mono" }, preview(one)), one.error ? h("div", { class: "error" }, errorText(one.error)) : null,
      one.dead_of ? h("div", { class: "dim" }, "Dead letter of ", linkTo(one.dead_of)) : null));
  const names = ["", "Message", "Sent", "Tries", "Body"];
  return h("section", {},
    h("form", { class: "bar", onsubmit: filter }, h("label", { for: "where" }, "Only where"), where, h("button", { type: "submit" }, "Filter")),
    h("div", { class: "bar" }, ticked, buttons,
      view.where || letters ? [button("Send back all", all("move", meant)), button("Delete all", all("delete", meant))] : null),
    messages.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name) => h("th", {}, name)))), h("tbody", {}, messages.map(row))))
      : h("div", { class: "empty" }, view.where ? "No message fits the condition." : "No message waits."),
    h("div", { class: "bar" },
      view.cursor ? h("button", { type: "button", onclick: go("") }, "First") : null,
      cursor ? h("button", { type: "button", onclick: go(cursor) }, "More") : null));
}

function detail(queue, path, message, act) {
  if (message === null) return h("aside", { class: "detail" }, "This message is not there any more: it was consumed, deleted, edited or sent back.");
  const at = `${path}/messages/${message.id}`;
  // Numbers that JavaScript cannot hold would come back changed: such a body is shown as it is stored.
  const exact = message.raw === null || JSON.stringify(message.body) === message.raw;
  const body = h("textarea", { id: "edited", spellcheck: "false" }, message.raw === null ? message.body : exact ? JSON.stringify(message.body, null, 2) : message.raw);
  const save = async () => {
    const { id } = await ask(at, request(body.value, message.content_type), "PUT");
    location.hash = `#/queues/${encodeURIComponent(queue.name)}/${id}`;
    return `The message has another body, and with it the id ${id}.`;
  };
  const one = (what) => async () => {
    const answer = await ask(`${path}/messages/${what}`, { ids: [message.id] });
    location.hash = `#/queues/${encodeURIComponent(queue.name)}`;
    return result(what, answer[DONE[what]]);
  };
  const words = [message.out ? "out with a consumer" : message.pulled ? "pulled" : "waiting", `${message.attempts} ${message.attempts === 1 ? "try" : "tries"}`, `sent ${moment(message.sent_ms)}`];
  if (!message.out && message.ready_ms > message.sent_ms) words.push(`ready ${moment(message.ready_ms)}`);
  return h("aside", { class: "detail" },
    h("h1", { class: "mono" }, message.id), h("p", { class: "dim" }, words.join(", ")),
    message.dead_of ? h("p", {}, "Dead letter of ", linkTo(message.dead_of)) : null,
    message.out ? null : h("div", { class: "bar" },
      message.dead_of ? h("button", { type: "button", onclick: act(one("move")) }, "Send it back") : null,
      h("button", { type: "button", onclick: act(one("delete")) }, "Delete it")),
    message.error ? h("section", {}, h("h2", {}, "Error"), h("p", { class: "error" }, errorText(message.error)), message.error.stack ? h("pre", {}, message.error.stack) : null) : null,
    exact ? json(`Body (${message.content_type})`, message.body) : h("section", {}, h("h2", {}, "Body (json)"), h("pre", {}, message.raw)),
    message.out ? null : h("details", {}, h("summary", {}, "Edit the body"), h("form", { onsubmit: act(save) },
      h("label", { for: "edited" }, message.content_type === "bytes" ? "Body (base64)" : "Body"), body,
      h("div", { class: "bar" }, h("button", { class: "primary", type: "submit" }, "Save")))));
}

const DONE = { move: "moved", delete: "deleted" };

function result(what, many) {
  return `${count(many)} ${what === "move" ? "sent back" : "deleted"}.`;
}

function count(many) {
  return `${many.toLocaleString()} ${many === 1 ? "message" : "messages"}`;
}

// A request with a body as it was typed.
function request(text, type, more = {}) {
  if (type !== "json") return { ...more, body: text, content_type: type };
  try { JSON.parse(text); } catch (error) { throw new Error(`The body is not JSON: ${error.message}`); }
  return `{"body":${text},"content_type":"json"${Object.entries(more).map(([name, value]) => `,${JSON.stringify(name)}:${JSON.stringify(value)}`).join("")}}`;
}

function preview({ body, content_type, bytes }) {
  const text = content_type === "bytes" ? `${bytes} bytes` : content_type === "text" ? body : JSON.stringify(body);
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
}

function errorText(error) {
  return `${error?.name ?? "Error"}: ${error?.message ?? JSON.stringify(error)}`;
}
