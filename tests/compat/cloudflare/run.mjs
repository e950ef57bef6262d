// `node run.mjs OPTIONS`: Cloudflare's local runtime with the Worker and the configuration of a file that configuration.py wrote.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Log, LogLevel, Miniflare } from "miniflare";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
config.manifest = {
  mainModule: "worker.mjs",
  modules: { "worker.mjs": { type: "esm", contents: readFileSync(join(import.meta.dirname, "worker.mjs"), "utf8") } },
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
