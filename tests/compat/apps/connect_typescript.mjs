// A Connect worker with the unmodified npm package, from the folder PACKAGES. Notes each call of a step in a file, with its process.

import { appendFileSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const { CALLS_FILE, MOST, PACKAGES, SERVER_URL } = process.env;
const require = createRequire(`${PACKAGES}/`);
const { Inngest, NonRetriableError } = require("inngest-v4");
const { connect } = require("inngest-v4/connect");
const client = new Inngest({ id: "wk", baseUrl: SERVER_URL, isDev: process.env.INNGEST_DEV !== "0" });

/** Write the call down; says how often it was made. */
function note(what) {
  appendFileSync(CALLS_FILE, `${what} ${process.pid}\n`);
  return readFileSync(CALLS_FILE, "utf8").split("\n").filter((line) => line.split(" ")[0] === what).length;
}

const whole = client.createFunction({ id: "whole", retries: 3, triggers: [{ event: "k/whole" }] }, async ({ event, step }) => {
  const one = (what) => () => (note(what), what);
  const first = await step.run("first", one("first"));
  const both = await Promise.all([step.run("left", one("left")), step.run("right", one("right"))]);
  await step.sleep("nap", "1s");
  const third = await step.run("flaky", () => {
    const count = note("flaky");
    if (count < 3) throw new Error(`try ${count}`);
    return count;
  });
  const sent = await step.sendEvent("send", { name: "k/sent", data: { from: "whole" } });
  return [first, both, third, sent.ids.length, event.data];
});

const caught = client.createFunction({ id: "caught", retries: 1, triggers: [{ event: "k/caught" }] }, async ({ step }) => {
  try {
    await step.run("boom", () => {
      note("boom");
      throw new Error("boom");
    });
  } catch (error) {
    return `caught ${error.message}`;
  }
  return "nothing raised";
});

const final = client.createFunction({ id: "final", retries: 4, triggers: [{ event: "k/final" }] }, async () => {
  note("final");
  throw new NonRetriableError("no use");
});

const long = client.createFunction({ id: "long", retries: 0, triggers: [{ event: "k/long" }] }, async ({ event, step }) => {
  const { name, seconds } = event.data;
  await step.run("before", () => (note(`${name}-before`), "before"));
  const done = await step.run("works", async () => {
    note(`${name}-begin`);
    await sleep(seconds * 1000);
    note(`${name}-end`);
    return name;
  });
  await step.run("after", () => (note(`${name}-after`), "after"));
  return done;
});

const connection = await connect({
  apps: [{ client, functions: [whole, caught, final, long] }],
  instanceId: `worker-${process.pid}`,
  maxWorkerConcurrency: Number(MOST ?? 100),
});
await connection.closed;
process.exit(0);
