// `node run.mjs FILE`: Cloudflare's local runtime with a Worker, configured as a file of JSON says; its `module` is the Worker's source.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Log, LogLevel, Miniflare } from "miniflare";

const { module, ...config } = JSON.parse(readFileSync(process.argv[2], "utf8"));
config.manifest = {
  mainModule: "worker.mjs",
  modules: { "worker.mjs": { type: "esm", contents: readFileSync(join(import.meta.dirname, module), "utf8") } },
};
const runtime = new Miniflare({
  workers: [{ config }],
  host: "127.0.0.1",
  port: 0,
  cf: false,
  telemetry: { enabled: false },
  log: new Log(LogLevel.NONE),
  // Whatever the Worker prints, and the runtime's own warnings.
  handleStructuredLogs: ({ message }) => process.stdout.write(`${message}\n`),
});
const url = await runtime.ready;
process.stdout.write(`listening at ${url.origin}\n`);
