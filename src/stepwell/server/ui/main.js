// Which page the address names, kept fresh while runs change.

import { LoginNeeded, listen } from "./api.js";
import { appsPage } from "./apps.js";
import { problem } from "./dom.js";
import { queuePage } from "./queue.js";
import { queuesPage } from "./queues.js";
import { runPage } from "./run.js";
import { runsPage } from "./runs.js";
import { loginPage, sendPage } from "./send.js";

const main = document.getElementById("main");
const live = document.getElementById("live");
const pause = document.getElementById("pause");
const QUEUES_MS = 2000;
let paused = false;
let drawing = false;
let stale = false;
let shown = "";
let stop = null;

function page() {
  const [, kind, id, step] = location.hash.split("/");
  if (kind === "runs" && id) return { name: "run", id, draw: () => runPage(id, step ? decodeURIComponent(step) : "", draw) };
  if (kind === "queues" && id) return { name: "queue", draw: () => queuePage(decodeURIComponent(id), step ?? "", draw) };
  if (kind === "queues") return { name: "queues", draw: () => queuesPage(draw) };
  if (kind === "apps") return { name: "apps", draw: () => appsPage(draw) };
  if (kind === "send") return { name: "send", draw: sendPage };
  return { name: "runs", draw: () => runsPage(draw) };
}

async function draw() {
  if (drawing) { stale = true; return; }
  drawing = true;
  const hash = location.hash;
  try {
    const content = await page().draw();
    if (hash === location.hash) {
      const top = shown === hash ? window.scrollY : 0;
      main.replaceChildren(content);
      window.scrollTo(0, top);
      shown = hash;
    } else stale = true;
    stop ??= listen(changed, (state) => { live.textContent = paused ? "paused" : state; });
  } catch (error) {
    main.replaceChildren(error instanceof LoginNeeded ? loginPage(draw) : problem(error, draw));
  }
  drawing = false;
  if (stale) { stale = false; draw(); }
}

let timer = null;
function changed(runId) {
  const { name, id } = page();
  if (paused || name === "send" || name === "apps" || name.startsWith("queue") || (name === "run" && runId !== null && runId !== id)) return;
  timer ??= setTimeout(() => { timer = null; draw(); }, 150);
}

// Queues tell of no changes: their pages look again, unless somebody is about to do something there.
function busy() {
  return main.contains(document.activeElement) && document.activeElement.matches("input, textarea, select") || main.querySelector("details[open], input:checked, [role=alert]") !== null;
}
setInterval(() => { if (!paused && !document.hidden && page().name.startsWith("queue") && !busy()) draw(); }, QUEUES_MS);

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Resume refresh" : "Pause refresh";
  live.textContent = paused ? "paused" : "live";
  if (!paused) draw();
});
window.addEventListener("hashchange", draw);
draw();
