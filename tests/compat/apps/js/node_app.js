// The programs under Node: `node node_app.js v3|v4 hono|node`, with Hono or the SDK's own server, which can stream.
import { createServer } from "node:http";
import { programs } from "./programs.js";

const [version, framework] = process.argv.slice(2);
const { kit } = await import(`./sdk_${version}.js`);
const made = kit(process.env);
const options = { client: made.client, functions: programs(made) };
const listen = { port: Number(process.env.PORT), hostname: "127.0.0.1" };
const ready = () => console.log("The app is ready");

if (framework === "node") {
  const { serve } = await import(`inngest-${version}/node`);
  createServer(serve(options)).listen(listen.port, listen.hostname, ready);
} else {
  const { Hono } = await import("hono");
  const { serve: listenWith } = await import("@hono/node-server");
  const { serve } = await import(`inngest-${version}/hono`);
  const app = new Hono();
  app.on(["GET", "PUT", "POST"], "/api/inngest", serve(options));
  listenWith({ fetch: app.fetch, ...listen }, ready);
}
