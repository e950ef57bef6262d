// The programs in the Workers runtime: `node worker_app.js v3|v4` bundles the Worker as wrangler does, and runs it in workerd.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Miniflare } from "miniflare";

const here = import.meta.dirname;
const main = `worker_${process.argv[2]}.js`;

/** The bundle, made anew when what it is made of has changed. Wrangler sends nothing anywhere. */
function bundled() {
  const sources = [main, `sdk_${process.argv[2]}.js`, "programs.js", "wrangler.jsonc", "package-lock.json"];
  const hash = createHash("sha256");
  for (const source of sources) hash.update(readFileSync(join(here, source)));
  const kept = join(here, "node_modules", `.bundle-${hash.digest("hex").slice(0, 16)}.js`);
  if (!existsSync(kept)) {
    const directory = mkdtempSync(join(tmpdir(), "stepwell-worker-"));
    const env = { ...process.env, CI: "1", WRANGLER_SEND_METRICS: "false", WRANGLER_LOG_PATH: directory, XDG_CONFIG_HOME: directory };
    const wrangler = join(here, "node_modules", "wrangler", "bin", "wrangler.js");
    const args = ["deploy", main, "--dry-run", "--config", join(here, "wrangler.jsonc"), "--outdir", directory];
    execFileSync(process.execPath, [wrangler, ...args], { cwd: here, env, stdio: ["ignore", "inherit", "inherit"] });
    // Renamed into place, for several may do so at once.
    cpSync(join(directory, main), `${kept}.${process.pid}`);
    renameSync(`${kept}.${process.pid}`, kept);
    rmSync(directory, { recursive: true });
  }
  return readFileSync(kept, "utf8");
}

const told = Object.keys(process.env).filter((name) => /^(SERVER_URL|NOTES_URL|APP_ID|ONLY|CHECKPOINTING|INNGEST_.*)$/.test(name));
const worker = new Miniflare({
  workers: [
    {
      config: {
        name: "stepwell-compat",
        compatibilityDate: "2026-07-01",
        compatibilityFlags: ["nodejs_compat"],
        manifest: { mainModule: main, modules: { [main]: { type: "esm", contents: bundled() } } },
        env: Object.fromEntries(told.map((name) => [name, { type: "text", value: process.env[name] }])),
      },
    },
  ],
  host: "127.0.0.1",
  port: Number(process.env.PORT),
  cf: false,
  telemetry: { enabled: false },
});
await worker.ready;
console.log("The app is ready");
