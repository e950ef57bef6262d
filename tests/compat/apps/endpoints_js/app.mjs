// Durable endpoints, checkpointed functions and defers, written with the unmodified SDK: node app.mjs PORT
import { createServer } from "node:http";
import { Inngest, NonRetriableError, step } from "inngest";
import { createDefer } from "inngest/experimental";
import { endpointAdapter, serve } from "inngest/edge";
import { stream } from "inngest/experimental/durable-endpoints";

const [port] = process.argv.slice(2);
const origin = `http://127.0.0.1:${port}`;
const inngest = new Inngest({ id: "js", endpointAdapter });
const tried = new Map();
const count = (name) => tried.set(name, (tried.get(name) ?? 0) + 1).get(name);

const routes = {
  "/fast": inngest.endpoint(async (req) => {
    const a = await step.run("a", () => count("fast a"));
    const b = await step.run("b", () => a + 1);
    return Response.json({ a, b });
  }),
  "/value": inngest.endpoint(async () => {
    const a = await step.run("a", () => "one");
    return { a };
  }),
  "/naps": inngest.endpoint(async (req) => {
    const a = await step.run("a", () => count("naps a"));
    await step.sleep("nap", "1s");
    const b = await step.run("b", () => a + 1);
    return Response.json({ a, b, method: req.method, query: new URL(req.url).search, type: req.headers.get("content-type") });
  }),
  "/flaky": inngest.endpoint(async () => {
    const a = await step.run("a", () => {
      if (count("flaky") < 3) throw new Error("not yet");
      return tried.get("flaky");
    });
    return Response.json({ a });
  }),
  "/throws": inngest.endpoint(async () => {
    await step.run("a", () => 1);
    if (count("throws") < 3) throw new Error("of the function");
    return { tries: tried.get("throws") };
  }),
  "/wide": inngest.endpoint(async () => {
    const [x, y] = await Promise.all([step.run("x", () => count("x")), step.run("y", () => count("y"))]);
    const z = await step.run("z", () => x + y);
    return { x, y, z };
  }),
  "/hopeless": inngest.endpoint(async () => {
    await step.sleep("nap", "1s");
    throw new NonRetriableError("never");
  }),
  "/streams": inngest.endpoint(async () => {
    await step.run("a", () => stream.push("early"));
    await step.sleep("nap", "1s");
    await step.run("b", () => stream.push("late"));
    return Response.json({ streamed: true });
  }),
  "/poll": inngest.endpointProxy(),
};

const tidy = createDefer(inngest, { id: "tidy" }, async ({ event, parents, step }) => {
  return step.run("tidy", () => ({ data: event.data, parent: parents[0].fnSlug, session: event.meta?.sessions ?? null }));
});
const five = inngest.createFunction({ id: "five", triggers: [{ event: "js/five" }] }, async ({ step }) => {
  let sum = 0;
  for (const n of [1, 2, 3, 4, 5]) sum += await step.run(`s${n}`, () => n);
  return sum;
});
const defers = inngest.createFunction({ id: "defers", triggers: [{ event: "js/defers" }] }, async ({ step, defer }) => {
  defer("kept", { function: tidy, data: { n: 1 }, meta: { sessions: { user: "u1" } } });
  const gone = defer("gone", { function: tidy, data: { n: 2 } });
  await step.run("a", () => 1);
  gone.abort();
  await step.sleep("nap", "1s");
  return "done";
});
const failing = inngest.createFunction({ id: "failing", retries: 0, triggers: [{ event: "js/failing" }] }, async ({ step, defer }) => {
  defer("kept", { function: tidy, data: { n: 3 } });
  throw new Error("no");
});
routes["/api/inngest"] = serve({ client: inngest, functions: [five, defers, failing, tidy], serveOrigin: origin });

const server = createServer(async (req, res) => {
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  const url = new URL(req.url, origin);
  const body = ["GET", "HEAD"].includes(req.method) ? undefined : Buffer.concat(chunks);
  const route = routes[url.pathname];
  if (url.pathname === "/counts") return res.end(JSON.stringify(Object.fromEntries(tried)));
  if (!route) return res.writeHead(404).end();
  const answer = await route(new Request(url, { method: req.method, headers: req.headers, body }));
  res.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body) for await (const part of answer.body) res.write(part);
  res.end();
});
server.listen(Number(port), "127.0.0.1", () => console.log("ready"));
