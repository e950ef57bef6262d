// What the cases run, as users of the npm package write it: one source for every version of the SDK and every runtime.
//
// Each function F is started by the event APP_ID/F, unless it says more. `needs` names what only some versions have: a function is left
// out where it is missing.

const MEBIBYTE = 1024 * 1024;

/**
 * The functions.
 *
 * @param {object} kit
 * @param {object} kit.sdk the SDK's module
 * @param {object} kit.client
 * @param {(config: object, triggers: object[], handler: Function) => object} kit.define makes a function, as the version wants it
 * @param {{SERVER_URL: string, NOTES_URL: string, APP_ID: string}} kit.env
 * @param {Set<string>} kit.has what the version has
 * @param {(channel: string, topic: string, data: object) => object[]} kit.message what is published, as the version wants it
 */
export function programs({ sdk, client, define, env, has, message }) {
  const { NonRetriableError, RetryAfterError } = sdk;
  const functions = [];

  /** A function of the app. Tried once, unless it says more. */
  function program(id, options, handler) {
    const { triggers = [{ event: event(id) }], needs = [], ...config } = options;
    if (!needs.every((need) => has.has(need))) return undefined;
    const made = define({ id, retries: 0, ...config }, triggers, handler);
    functions.push(made);
    return made;
  }

  /** An event's name. */
  function event(name) {
    return `${env.APP_ID}/${name}`;
  }

  /** Notes a text outside the process; says how often it came. */
  async function note(text) {
    const answer = await fetch(`${env.NOTES_URL}/note`, { method: "POST", body: text });
    return (await answer.json()).count;
  }

  /** Notes a text, and gives it. */
  async function noted(text) {
    await note(text);
    return text;
  }

  /** Waits a little for the case's leave to go on; says whether it came. */
  async function isFree() {
    return (await (await fetch(`${env.NOTES_URL}/gate`)).json()).open;
  }

  // Steps.

  program("whole", { retries: 3 }, async ({ event: { data }, step }) => {
    const one = async (what) => {
      await note(what);
      return { whole: 1, half: 1.5 };
    };
    const first = await step.run("first", one, "first");
    const both = await Promise.all([step.run("left", () => one("left")), step.run("right", () => one("right"))]);
    await step.sleep("nap", "1s");
    const third = await step.run("flaky", async () => {
      const count = await note("flaky");
      if (count < 3) throw new Error(`try ${count}`);
      return count;
    });
    const sent = await step.sendEvent("send", { name: event("sent"), data: { from: "whole" } });
    return [first, both, third, sent.ids.length, data];
  });

  program("plain", {}, async () => {
    await note("plain");
  });

  program("values", {}, async ({ event: { data }, step }) => {
    return { step: await step.run("same", () => data.value), event: data.value };
  });

  program("repeated", {}, async ({ step }) => {
    const counts = [];
    for (let i = 0; i < 3; i++) counts.push(await step.run("again", () => note("again")));
    return counts;
  });

  program("until", {}, async ({ event: { data }, step }) => {
    await step.sleepUntil("until", new Date(data.at * 1000));
    await step.sleepUntil("past", new Date("2020-01-01T00:00:00Z"));
    return "awake";
  });

  program("sleeps-too-long", { retries: 3 }, async ({ step }) => {
    await step.sleep("ages", "400d");
  });

  program("sends", {}, async ({ runId, step }) => {
    const events = [0, 1, 2].map((n) => ({ name: event("sent-many"), data: { n }, id: `${runId}-${n % 2}` }));
    return (await step.sendEvent("send", events)).ids;
  });

  program("sends-outside", {}, async ({ event: { data } }) => {
    try {
      return (await client.send(data.events)).ids.length;
    } catch (error) {
      return `refused: ${error.message}`;
    }
  });

  program("budget-sleeps", { retries: 20 }, async ({ event: { data }, step }) => {
    const first = await step.run("before", () => noted("before"));
    await step.sleep("nap", `${data.nap ?? 1}s`);
    return [first, await step.run("after", () => noted("after"))];
  });

  program("inputs", {}, async ({ step }) => {
    return await step.run("add", (a, b) => a + b, 1, 2.5);
  });

  // Parallel steps.

  program("mixed", {}, async ({ step }) => {
    const guarded = async () => {
      try {
        return await step.run("bad", async () => {
          await note("bad");
          throw new Error("bad");
        });
      } catch (error) {
        return `caught ${error.message}`;
      }
    };
    const all = await Promise.all([
      step.run("quick", () => noted("quick")),
      guarded(),
      step.sleep("nap", "1s"),
      step.invoke("child", { function: child, data: { x: 1 } }),
      step.waitForEvent("never", { event: event("never"), timeout: "1s" }),
    ]);
    await note("joined");
    return all.map((one) => one ?? null);
  });

  // The quick branch goes on while the slow one sleeps. From major version 2 of calls on this has to be asked for.
  program("races", {}, async ({ group, step }) => {
    const chain = async (name, nap) => {
      await step.sleep(`${name} nap`, nap);
      return await step.run(`${name} done`, () => noted(`${name} done`));
    };
    const race = () => Promise.race([chain("quick", "1s"), chain("slow", "3s")]);
    return [has.has("group") ? await group.parallel(race) : await race()];
  });

  program("first-of", { optimizeParallelism: false }, async ({ step }) => {
    const first = await Promise.race([
      step.run("quick", () => noted("quick")),
      step.sleep("slow", "3s").then(() => "slow"),
    ]);
    return [first, await step.run("after", () => noted("after"))];
  });

  // A sleep beside two steps, then one more step: the protocol's own example.
  const exemplary = async ({ step }) => {
    const [x, y] = await Promise.all([
      step.run("x", () => noted("x")),
      step.run("y", () => noted("y")),
      step.sleep("z", "1s"),
    ]);
    return [x, y, await step.run("w", () => noted("w"))];
  };
  program("exemplary", {}, exemplary);
  program("exemplary-each", { optimizeParallelism: false }, exemplary);
  program("exemplary-joined", { optimizeParallelism: true }, exemplary);

  program("chains", {}, async ({ step }) => {
    const chain = async (name) => [
      await step.run(`${name} 1`, () => noted(`${name} 1`)),
      await step.run(`${name} 2`, () => noted(`${name} 2`)),
    ];
    return await Promise.all(["a", "b", "c"].map(chain));
  });

  program("settled", { retries: 1 }, async ({ step }) => {
    const all = await Promise.allSettled([
      step.run("good", () => noted("good")),
      step.run("bad", async () => {
        await note("bad");
        throw new Error("bad");
      }),
    ]);
    return all.map((one) => one.value ?? one.reason.message);
  });

  // Waits, invocations, signals, cancellation.

  program("waits", {}, async ({ step }) => {
    const found = await step.waitForEvent("answer", {
      event: event("answer"),
      if: "event.data.id == async.data.id && async.data.ok",
      timeout: "5m",
    });
    const none = await step.waitForEvent("never", { event: event("never"), timeout: "1s" });
    return [found?.data ?? null, found?.name ?? null, none];
  });

  program("matches", {}, async ({ step }) => {
    return (await step.waitForEvent("answer", { event: event("matched"), match: "data.id", timeout: "5m" }))?.data ?? null;
  });

  program("both", {}, async ({ step }) => {
    const [found, sent] = await Promise.all([
      step.waitForEvent("answer", { event: event("self"), timeout: "5m" }),
      step.sendEvent("send", { name: event("self"), data: { n: 1 } }),
    ]);
    return [found?.data ?? null, sent.ids.length];
  });

  program("waits-for-itself", {}, async ({ step }) => {
    return await step.waitForEvent("again", { event: event("waits-for-itself"), timeout: "1s" });
  });

  program("waits-wrongly", { retries: 3 }, async ({ step }) => {
    return await step.waitForEvent("answer", { event: event("answer"), if: "this is (no expression", timeout: "5m" });
  });

  const child = program("child", {}, async ({ event: { data }, step }) => {
    await note("child");
    if (data.fail) throw new NonRetriableError("the child failed");
    if (data.nap) await step.sleep("nap", data.nap * 1000);
    return { got: data.x ?? null };
  });

  /** Makes each call, which has to fail: [id, name, message]. */
  async function errors(calls) {
    const found = [];
    for (const [id, call] of Object.entries(calls)) {
      try {
        await call(id);
      } catch (error) {
        found.push([id, error.name, error.message]);
      }
    }
    return found;
  }

  program("invokes", {}, async ({ step }) => {
    const good = await step.invoke("good", { function: child, data: { x: [1, 2] } });
    const bad = await errors({
      bad: (id) => step.invoke(id, { function: child, data: { fail: true } }),
      slow: (id) => step.invoke(id, { function: child, data: { nap: 60 }, timeout: "1s" }),
      nobody: (id) => step.invoke(id, { function: sdk.referenceFunction({ functionId: "nobody" }), data: {} }),
    });
    return [good, bad];
  });

  program("invokes-once", {}, async ({ event: { data }, step }) => {
    try {
      return await step.invoke("child", { function: child, data });
    } catch (error) {
      return ["caught", error.name, error.message];
    }
  });

  program("invokes-other", {}, async ({ event: { data }, step }) => {
    const other = sdk.referenceFunction({ appId: data.app, functionId: "child" });
    return await step.invoke("other", { function: other, data: { x: data.x } });
  });

  program("refers", {}, async ({ step }) => {
    const named = sdk.referenceFunction({ appId: env.APP_ID, functionId: "child" });
    const call = (x) => step.invoke(x, { function: named, data: { x } });
    return await Promise.all([call("left"), call("right")]);
  });

  program("waits-for-signal", {}, async ({ event: { data }, step }) => {
    return await step.waitForSignal("signal", { signal: data.signal, timeout: data.timeout ?? "5m", onConflict: data.conflict ?? "fail" });
  });

  program("sends-signal", {}, async ({ event: { data }, step }) => {
    await step.sendSignal("send", { signal: data.signal, data: { from: "a step" } });
    return "sent";
  });

  program("cancelled", { cancelOn: [{ event: event("stop"), if: "event.data.id == async.data.id" }] }, async ({ step }) => {
    await step.sleep("long", "5m");
    return "went on";
  });

  program("cancelled-match", { cancelOn: [{ event: event("stop-match"), match: "data.id" }] }, async ({ step }) => {
    await step.sleep("long", "5m");
    return "went on";
  });

  program("gated", {}, async ({ step }) => {
    await step.run("busy", async () => {
      // Until the case lets it go.
      while (!(await isFree()));
      return await note("busy");
    });
    await note("after");
    return "went on";
  });

  program("limited", { timeouts: { finish: "1s" } }, async ({ step }) => {
    await step.sleep("long", "5m");
    return "went on";
  });

  program("startlimited", { concurrency: 1, timeouts: { start: "1s" } }, async ({ step }) => {
    await step.run("busy", async () => {
      // Holds the only place until the case lets it go.
      while (!(await isFree()));
      return await note("busy");
    });
    return "started";
  });

  // Failures.

  /** A step that always fails. */
  async function boom() {
    await note("boom");
    throw new TypeError("boom", { cause: new Error("what lies behind") });
  }

  program("caught", { retries: 1 }, async ({ step }) => {
    try {
      await step.run("boom", boom);
    } catch (error) {
      return `caught ${error.message}`;
    }
    return "nothing raised";
  });

  program("error-shape", {}, async ({ step }) => {
    try {
      await step.run("boom", boom);
    } catch (error) {
      return [error instanceof sdk.StepError, error.name, error.message, error.cause?.message ?? null];
    }
    return "nothing raised";
  });

  program("uncaught", { retries: 1 }, async ({ step }) => {
    await note("uncaught");
    await step.run("boom", boom);
  });

  program("budget", { retries: 1 }, async ({ step }) => {
    const onceMore = async (name) => {
      if ((await note(name)) === 1) throw new Error(name);
      return name;
    };
    await step.run("a", () => onceMore("a"));
    await step.run("b", () => onceMore("b"));
    if ((await note("end")) === 1) throw new Error("the end");
    return "passed";
  });

  program("failing", { retries: 1 }, async () => {
    await note("failing");
    throw new TypeError("the function itself");
  });

  program("unserializable", {}, async ({ step }) => {
    return await step.run("opaque", () => 1n);
  });

  program("final", { retries: 4 }, async () => {
    await note("final");
    throw new NonRetriableError("no use");
  });

  program("finalstep", { retries: 4 }, async ({ event: { data }, step }) => {
    const call = () =>
      step.run("no use", async () => {
        await note("no use");
        throw new NonRetriableError("no use in a step");
      });
    if (!data.catch) return await call();
    const [[, , message]] = await errors({ "no use": call });
    return `caught ${message}`;
  });

  program("later", { retries: 2 }, async ({ step }) => {
    const free = await step.run("busy", async () => {
      if ((await note("busy")) === 1) throw new RetryAfterError("come back", "2s");
      return "free";
    });
    if ((await note("later")) === 1) throw new RetryAfterError("once more", new Date(Date.now() + 2000));
    return free;
  });

  const onFailure = async ({ event: { data }, error }) => {
    await note(`on_failure ${data.error.message}`);
    return error.message === data.error.message ? "told of it" : error;
  };

  program("told", { onFailure }, async () => {
    throw new Error("tell them");
  });

  // Triggers and settings.

  program("picky", { triggers: [{ event: event("*"), if: "event.data.amount > 10" }] }, (context) => context.event.name);

  program("dotted", { triggers: [{ event: event("a.b.*") }] }, (context) => context.event.name);

  program(
    "manytriggers",
    { triggers: [{ event: event("many") }, { event: event("many"), if: "event.data.n > 1" }, { event: event("more") }] },
    (context) => [context.event.name, context.events.length],
  );

  program("ticks", { triggers: [{ cron: "* * * * *" }] }, async (context) => {
    await note(`tick ${context.event.id}`);
    return context.event.data.cron;
  });

  program(
    "ticks-of-a-zone",
    { triggers: [{ cron: "TZ=Europe/Berlin * * * * *", ...(has.has("jitter") ? { jitter: "2s" } : {}) }] },
    (context) => context.event.data,
  );

  program("delayed", {}, async () => {
    await note("delayed");
    return "ran";
  });

  program("meta", {}, async (context) => {
    await context.step.sendEvent("send", { name: event("meta-child"), data: {}, meta: { sessions: { own: "o" } } });
    return context.event.meta ?? null;
  });

  program("meta-child", {}, (context) => context.event.meta ?? null);

  program(
    "settings",
    {
      name: "Every setting",
      retries: 20,
      cancelOn: [{ event: event("stop"), if: "event.data.id == async.data.id", timeout: "60s" }],
      concurrency: [{ limit: 5 }, { limit: 2, key: "event.data.tenant", scope: "env" }],
      debounce: { period: "5s", key: "event.data.id", timeout: "60s" },
      priority: { run: "event.data.plan == 'pro' ? 120 : 0" },
      rateLimit: { limit: 10, period: "60s", key: "event.data.id" },
      throttle: { limit: 10, period: "60s", burst: 2, key: "event.data.id" },
      singleton: { mode: "skip", key: "event.data.id" },
      timeouts: { start: "10s", finish: "60s" },
    },
    () => null,
  );

  program(
    "batched",
    {
      triggers: [{ cron: "TZ=Europe/Berlin 0 3 * * 1-5" }],
      batchEvents: { maxSize: 10, timeout: "5s", key: "event.data.id" },
      idempotency: "event.data.id",
    },
    () => null,
  );

  // Flow control.

  const atWork = async ({ event, step }) => {
    await step.run("work", async () => {
      const count = await note(`${event.name} begins`);
      while (!(await isFree()));
      return count;
    });
    return String(event.data.n);
  };

  program("narrow", { concurrency: [{ limit: 1, key: "event.data.t" }] }, atWork);

  program("urgent", { concurrency: 1, priority: { run: "event.data.plan == 'pro' ? 600 : 0" } }, atWork);

  program("throttled", { throttle: { limit: 1, period: "2s", burst: 1, key: "event.data.t" } }, () => "ran");

  const rated = program("rated", { rateLimit: { limit: 1, period: "60s", key: "event.data.t" } }, () => "ran");

  program("asks-rated", {}, async ({ event, step }) => {
    try {
      await step.invoke("ask", { function: rated, data: { t: event.data.t } });
    } catch (error) {
      return error.message;
    }
    return "ran";
  });

  program("onceonly", { idempotency: "event.data.t" }, () => "ran");

  program("debounced", { debounce: { period: "1s", key: "event.data.t" } }, (context) => context.event.data.n);

  program("joined", { batchEvents: { maxSize: 3, timeout: "2s", key: "event.data.t" } }, (context) =>
    context.events.map((one) => one.data.n),
  );

  program("single", { singleton: { mode: "skip", key: "event.data.t" } }, atWork);

  program("latest", { singleton: { mode: "cancel", key: "event.data.t" } }, async ({ event, step }) => {
    await step.sleep("long", event.data.n === 1 ? "5m" : "1ms");
    return "ran";
  });

  // Requests that the server makes for a step, and what wraps a request.

  program("fetches", {}, async ({ step }) => {
    const headers = { authorization: "Bearer sk-secret-in-a-header" };
    const posted = await step.fetch(`${env.NOTES_URL}/echo?q=1`, { method: "POST", headers, body: "text ü" });
    const missing = await step.fetch(`${env.NOTES_URL}/nothing`);
    return [posted.status, posted.headers.get("x-echo"), await posted.json(), missing.status];
  });

  program("infers", { retries: 1 }, async ({ step }) => {
    const { models } = step.ai;
    // The adapters write their model into the body.
    const body = (more) => ({ messages: [{ role: "user", content: "how much is it?" }], ...more });
    const options = { apiKey: "sk-secret-of-the-provider", baseUrl: `${env.NOTES_URL}/ai` };
    const openai = models.openai({ ...options, model: "gpt" });
    openai.headers = { ...openai.headers, "x-extra": "sk-secret-in-a-header" };
    const anthropic = models.anthropic({ ...options, model: "claude", defaultParameters: { max_tokens: 5 } });
    const answers = [
      await step.ai.infer("openai", { model: openai, body: body() }),
      await step.ai.infer("anthropic", { model: anthropic, body: body() }),
    ];
    try {
      await step.ai.infer("refused", { model: openai, body: body({ refuse: true }) });
    } catch (error) {
      answers.push([error.name, error.message]);
    }
    return answers;
  });

  program("gemini", {}, async ({ step }) => {
    const model = step.ai.models.gemini({ model: "gem", apiKey: "sk-secret-of-the-provider", baseUrl: `${env.NOTES_URL}/ai` });
    return await step.ai.infer("ask", { model, body: { contents: [{ role: "user", parts: [{ text: "how much is it?" }] }] } });
  });

  program("publishes", {}, async ({ event: { data }, step }) => {
    await step.run("tell 1", () => client.realtime.publish(...message(data.channel, "status", { n: 1, text: "ü" })));
    await step.realtime.publish("tell 2", ...message(data.channel, "status", { n: 2, text: "ü" }));
    return "told";
  });

  program("wraps", {}, async ({ step }) => {
    const ask = async (question, { answer }) => `${await noted(question)} ${answer}`;
    return await step.ai.wrap("ask", ask, "what?", { answer: "that" });
  });

  // Checkpoints.

  const STEPS = ["one", "two", "three", "four", "five"];
  const fiveSteps = async ({ step }) => {
    const found = [];
    for (const id of STEPS) found.push(await step.run(id, () => noted(id)));
    return found;
  };
  program("five", {}, fiveSteps);
  program("five-unsaved", { checkpointing: false }, fiveSteps);
  program("five-saved", { checkpointing: true }, fiveSteps);
  program("five-buffered", { checkpointing: { bufferedSteps: 2, maxInterval: "10s", maxRuntime: "60s" } }, fiveSteps);
  program("five-slow", { checkpointing: { maxRuntime: "1s" } }, async ({ step }) => {
    for (const id of STEPS) await step.run(id, () => new Promise((done) => setTimeout(() => done(id), 400)));
    return "done";
  });
  program("saved-and-asleep", { checkpointing: true }, async ({ step }) => {
    const before = await step.run("before", () => noted("before"));
    await step.sleep("nap", "1s");
    return [before, await step.run("after", () => noted("after"))];
  });
  program("superseded", { checkpointing: true, retries: 2 }, async ({ step }) => {
    await step.run("first", () => noted("first"));
    await step.run("held", async () => {
      // The first call stays here until the case lets it go; by then another call has gone on without it.
      if ((await note("held")) === 1) while (!(await isFree()));
    });
    await step.sleep("nap", "3s");
    return await step.run("last", () => noted("last"));
  });
  program("crashes", { checkpointing: true, retries: 2 }, async ({ step }) => {
    await step.run("first", () => noted("first"));
    if ((await note("crash")) === 1) throw new Error("after a checkpoint");
    return await step.run("last", () => noted("last"));
  });

  // What only newer versions have.

  program("experiments", { needs: ["group"] }, async ({ group, step }) => {
    const { result, variant } = await group.experiment("flow", {
      variants: { old: () => step.run("old", () => "the old way"), new: () => step.run("new", () => "the new way") },
      select: sdk.experiment.fixed("new"),
    });
    return [result, variant];
  });

  // Large values.

  program("big", {}, async ({ step }) => {
    const sizes = [];
    for (let n = 0; n < 4; n++) sizes.push((await step.run(`part ${n}`, () => "x".repeat(1_500_000))).length);
    await step.sleep("nap", "1s");
    return sizes;
  });

  program("too-large", { retries: 1 }, async ({ step }) => {
    return await step.run("part", async () => {
      await note("too large");
      return "x".repeat(4 * MEBIBYTE + 1);
    });
  });

  program("returns-too-much", {}, () => "x".repeat(8 * MEBIBYTE + 1));

  // What middleware gives a function, and what it changes.

  program("middleware", {}, async ({ given, step }) => {
    return [given.word, await step.run("inside", () => given.word.toUpperCase())];
  });

  // A case of registration starts the app with fewer functions.
  const only = env.ONLY?.split(",");
  return only === undefined ? functions : functions.filter((one) => only.includes(one.id()));
}
