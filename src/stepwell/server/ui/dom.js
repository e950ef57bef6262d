// Elements from code. Text is always text: nothing that users send is ever read as HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function took(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${ms} ms`;
  if (ms < 120000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7200000) return `${(ms / 60000).toFixed(1)} min`;
  return `${(ms / 3600000).toFixed(1)} h`;
}

export function moment(ms) {
  return ms === null || ms === undefined ? "–" : new Date(ms).toLocaleString();
}

export function status(word) {
  return h("span", { class: `status ${word}` }, word[0].toUpperCase() + word.slice(1));
}

export function json(title, value) {
  const raw = JSON.stringify(value);
  const pretty = JSON.stringify(value, null, 2);
  const body = h("pre", {}, pretty);
  const toggle = h("button", { type: "button", onclick: () => {
    const isRaw = body.textContent === raw && raw !== pretty;
    body.textContent = isRaw ? pretty : raw;
    toggle.textContent = isRaw ? "Raw" : "Pretty";
  } }, "Raw");
  const copy = h("button", { type: "button", onclick: async () => {
    await navigator.clipboard.writeText(pretty);
    copy.textContent = "Copied";
  } }, "Copy");
  const size = new Blob([raw]).size;
  return h("section", {},
    h("div", { class: "bar" }, h("h2", { class: "grow" }, title), h("span", { class: "dim" }, `${size} bytes`), toggle, copy), body);
}

export function problem(error, retry) {
  return h("div", { class: "problem", role: "alert" }, h("p", { class: "error" }, error.message),
    retry ? h("button", { type: "button", onclick: retry }, "Try again") : null);
}
