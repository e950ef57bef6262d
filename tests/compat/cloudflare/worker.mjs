// What scenarios.py describes, done by a Worker: `worker/entry.py` does the same line by line, so a change here is a change there.
//
// `POST /run/{id}` does a scenario's steps and answers with the result of each. What happens by itself (batches, alarms) and the order of
// things are printed, a line of JSON each after the word "observed": printing opens no gate, and needs no storage of what is observed.
import { DurableObject, WorkerEntrypoint } from "cloudflare:workers";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const record = (fields) => console.log(`observed ${JSON.stringify({ at: Date.now(), ...fields })}`);
const LONG = 1000;
const binding = (kind, id) => `${kind}_${id.toUpperCase().replaceAll("-", "_")}`;

let known;

/** The scenario of an id. */
function scenarioOf(env, id) {
  known ??= new Map(JSON.parse(env.SCENARIOS).map((one) => [one.id, one]));
  return known.get(id);
}

/** A value as scenarios write it, from one that a binding gave. */
function plain(value) {
  if (value === undefined || value === null) return null;
  if (value instanceof Map) return plain(Object.fromEntries(value));
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return { bytes: [...new Uint8Array(value)] };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one)]));
  if (typeof value === "string" && value.length > LONG) return `${value.length} characters`;
  return value;
}

/** The other way round: bytes are written as `{"bytes": [1, 2]}`, a long text as `{"repeat": ["x", 2]}`. */
function real(value) {
  if (Array.isArray(value)) return value.map(real);
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value.bytes)) return new Uint8Array(value.bytes);
  if (Array.isArray(value.repeat)) return value.repeat[0].repeat(value.repeat[1]);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, real(one)]));
}

/** An error to be thrown. */
function failure(kind, message) {
  const types = { Error, TypeError, RangeError };
  if (kind in types) return new types[kind](message);
  const error = new Error(message);
  error.name = kind;
  return error;
}

const shown = (error) => ({ error: { name: error.name, message: error.message } });

/** What a promise comes to, as a value. */
async function outcome(promise) {
  try {
    return { value: plain(await promise) };
  } catch (error) {
    return shown(error);
  }
}

/** A message's name: that in its body, or its body as text. */
function nameOf(body) {
  if (typeof body === "string") return plain(body);
  if (body instanceof ArrayBuffer || ArrayBuffer.isView(body)) return new TextDecoder().decode(body);
  return body?.name ?? JSON.stringify(body).replaceAll(",", ", ");
}

/** Options as the last argument, where there are any. */
const withOptions = (args, options) => (options && Object.keys(options).length ? [...args, options] : args);

export default class extends WorkerEntrypoint {
  async fetch(request) {
    const id = new URL(request.url).pathname.slice("/run/".length);
    const scenario = scenarioOf(this.env, id);
    if (scenario === undefined) return new Response("ready");
    const client = new Client(this.env, scenario);
    record({ scenario: id, kind: "start" });
    return Response.json(await client.all(scenario.steps));
  }

  async queue(batch) {
    const dead = batch.queue.endsWith("-dead");
    const scenario = scenarioOf(this.env, dead ? batch.queue.slice(0, -"-dead".length) : batch.queue);
    const messages = batch.messages.map((message) => ({
      name: nameOf(message.body),
      attempts: message.attempts,
      id: message.id,
      timestamp: message.timestamp.getTime(),
      body: plain(message.body),
    }));
    record({ scenario: scenario.id, kind: "batch", dead, messages });
    try {
      const attempt = Math.max(...messages.map((message) => message.attempts));
      await this.decide(batch, scenario, dead ? [] : (scenario.decisions[attempt - 1] ?? []));
    } finally {
      record({ scenario: scenario.id, kind: "batch ends", dead });
    }
  }

  async decide(batch, scenario, ops) {
    for (const [op, ...args] of ops) {
      const message = batch.messages.find((one) => nameOf(one.body) === args[0]);
      if (op === "ack") message?.ack();
      else if (op === "retry") message?.retry(...(args[1] === undefined ? [] : [{ delaySeconds: args[1] }]));
      else if (op === "ackAll") batch.ackAll();
      else if (op === "retryAll") batch.retryAll(...(args[0] === undefined ? [] : [{ delaySeconds: args[0] }]));
      else if (op === "throw") throw failure(...args);
      else if (op === "sleep") await pause(args[0]);
      else if (op === "waitUntil") this.ctx.waitUntil(this.decide(batch, scenario, args[0]));
      else if (op === "forget") void this.decide(batch, scenario, args[0]);
      else if (op === "mark") record({ scenario: scenario.id, kind: "mark", text: args[0] });
      else if (op === "metrics") {
        const { backlogCount, backlogBytes } = batch.metadata.metrics;
        record({ scenario: scenario.id, kind: "mark", text: `${backlogCount} messages, ${backlogBytes} bytes are left` });
      } else throw new Error(`a consumer knows no ${op}`);
    }
  }
}

/** Whoever sends, calls, and asks KV and D1. */
class Client {
  constructor(env, scenario) {
    this.env = env;
    this.scenario = scenario;
    this.calls = 0;
    this.stubs = new Map();
  }

  /** One step after the other; an error does not keep the next from being done. */
  async all(steps) {
    const results = [];
    for (const step of steps) results.push(await outcome(this.step(step)));
    return results;
  }

  async step([op, ...args]) {
    const { env, scenario } = this;
    const bound = (kind) => env[binding(kind, scenario.id)];
    switch (op) {
      case "sleep":
        return await pause(args[0]);
      case "together":
        return await Promise.all(args[0].map((step) => outcome(this.step(step))));
      case "send": {
        const [body, options] = args;
        record({ scenario: scenario.id, kind: "sent", names: [nameOf(real(body))] });
        await bound("QUEUE").send(...withOptions([real(body)], options));
        return null;
      }
      case "sendBatch": {
        const [messages, options] = args;
        record({ scenario: scenario.id, kind: "sent", names: messages.map((message) => nameOf(real(message.body))) });
        await bound("QUEUE").sendBatch(...withOptions([real(messages)], options));
        return null;
      }
      case "call":
        return await this.stub(args[0]).run(args[0], `call ${++this.calls}`, args[1]);
      case "held": {
        // The same stub again and again.
        if (!this.stubs.has(args[0])) this.stubs.set(args[0], this.stub(args[0]));
        return await this.stubs.get(args[0]).run(args[0], `call ${++this.calls}`, args[1]);
      }
      case "rpc":
        return await this.stub(args[0])[args[1]](...args[2]);
      case "same id": {
        const [one, other] = args.map((name) => env.ACTOR.idFromName(name).toString());
        return [one === other, /^[0-9a-f]{64}$/.test(one)];
      }
      case "id of": {
        env.ACTOR.idFromString(args[0]);
        return null;
      }
      case "kv":
        return await bound("KV")[args[0]](...withOptions(args[1], args[2]));
      case "kv list": {
        // Cursors are the store's own: all pages are followed.
        const pages = [];
        let cursor;
        do {
          const page = await bound("KV").list({ ...args[0], ...(cursor === undefined ? {} : { cursor }) });
          pages.push([page.keys.map((key) => key.name), page.list_complete]);
          cursor = page.cursor;
        } while (cursor !== undefined && pages.length < 9);
        return pages;
      }
      case "kv keys":
        return (await bound("KV").list(args[0])).keys;
      case "d1": {
        const [method, sql, bindings, ...rest] = args;
        const prepared = bound("D1").prepare(sql);
        const statement = bindings === null ? prepared : prepared.bind(...real(bindings));
        return told(await statement[method](...rest));
      }
      case "d1 batch": {
        const statements = args[0].map(([sql, bindings]) => bound("D1").prepare(sql).bind(...real(bindings)));
        return (await bound("D1").batch(statements)).map(told);
      }
      case "d1 exec":
        return (await bound("D1").exec(args[0])).count;
      default:
        throw new Error(`a client knows no ${op}`);
    }
  }

  stub(name) {
    return this.env.ACTOR.getByName(`${this.scenario.id}/${name}`);
  }
}

/** Of D1's results, what is the same wherever and however fast it runs. */
function told(result) {
  if (result === null || typeof result !== "object" || !("meta" in result)) return result;
  const { changes, last_row_id, changed_db } = result.meta;
  return { success: result.success, results: result.results, meta: { changes, last_row_id, changed_db } };
}

export class Actor extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    const [id, name] = ctx.id.name.split("/");
    this.scenario = scenarioOf(env, id);
    this.name = name;
    this.fields = {};
    this.set = null;
    this.runs = 0;
    if (this.scenario.setup.length) {
      void ctx.blockConcurrencyWhile(() => this.all(this.scenario.setup, ctx.storage, null));
    }
  }

  mark(text) {
    record({ scenario: this.scenario.id, kind: "mark", text });
  }

  async run(object, call, ops) {
    this.mark(`${call} begins`);
    try {
      return await this.all(ops, this.ctx.storage, null);
    } finally {
      this.mark(`${call} ends`);
    }
  }

  echo(...values) {
    return values;
  }

  _under() {
    return "under";
  }

  async alarm(info) {
    const told = { scenario: this.scenario.id, object: this.name };
    const { alarms } = this.scenario;
    const ops = alarms[Math.min(this.runs++, alarms.length - 1)] ?? [];
    record({ ...told, kind: "alarm", retryCount: info.retryCount, isRetry: info.isRetry });
    this.mark("alarm begins");
    try {
      record({ ...told, kind: "alarm result", value: plain(await this.all(ops, this.ctx.storage, info)) });
    } catch (error) {
      record({ ...told, kind: "alarm result", ...shown(error) });
      throw error;
    } finally {
      this.mark("alarm ends");
    }
  }

  /** One after the other, up to the first error. */
  async all(ops, storage, info) {
    const results = [];
    for (const op of ops) results.push(plain(await this.step(op, storage, info)));
    return results;
  }

  async step([op, ...args], storage, info) {
    switch (op) {
      case "get":
      case "put":
      case "delete":
      case "list":
      case "deleteAll":
      case "deleteAlarm":
        return await storage[op](...real(args));
      case "sync":
        return await this.ctx.storage.sync();
      case "setAlarm":
        this.set = Date.now() + args[0];
        return await storage.setAlarm(this.set);
      case "setAlarm at":
        return await storage.setAlarm(args[0]);
      case "getAlarm": {
        const time = await storage.getAlarm();
        return time === null ? null : time === this.set ? "as set" : "another time";
      }
      case "info":
        return [info.retryCount, info.isRetry, info.scheduledTime === this.set ? "as set" : "another time"];
      case "add": {
        const [key, number, wait] = args;
        const before = (await storage.get(key)) ?? 0;
        if (wait) await pause(wait);
        await storage.put(key, before + number);
        return before + number;
      }
      case "sleep":
        return await pause(args[0]);
      case "throw":
        throw failure(...args);
      case "catch":
        return await outcome(this.all(args[0], storage, info));
      case "together":
        return await Promise.all(args[0].map((one) => this.step(one, storage, info)));
      case "unawaited":
        void this.step(args[0], storage, info);
        return null;
      case "waitUntil":
        this.ctx.waitUntil(this.all(args[0], storage, info));
        return null;
      case "block":
        return await this.ctx.blockConcurrencyWhile(() => this.all(args[0], storage, info));
      case "transaction":
        return await storage.transaction((handle) => this.all(args[0], handle, info));
      case "transaction and storage":
        // What is done without the handle.
        return await storage.transaction(() => this.all(args[0], storage, info));
      case "rollback":
        return storage.rollback();
      case "transactionSync":
        return this.ctx.storage.transactionSync(() => args[0].map((one) => plain(this.sync(one))));
      case "field":
        if (args.length > 1) this.fields[args[0]] = args[1];
        return this.fields[args[0]];
      case "abort":
        return this.ctx.abort(args[0]);
      case "name":
        return this.ctx.id.name;
      default:
        return this.sync([op, ...args]);
    }
  }

  /** What has no await in it, so that it may stand in a `transactionSync`. */
  sync([op, ...args]) {
    const { kv, sql } = this.ctx.storage;
    switch (op) {
      case "mark":
        return this.mark(args[0]);
      case "kv":
        return args[0] === "list" ? Object.fromEntries(kv.list(...args.slice(1))) : kv[args[0]](...real(args.slice(1)));
      case "sql":
        return sql.exec(args[0], ...real(args.slice(1))).toArray();
      case "sql one":
        return sql.exec(args[0], ...real(args.slice(1))).one();
      case "sql raw": {
        const cursor = sql.exec(args[0], ...real(args.slice(1)));
        return [cursor.columnNames, [...cursor.raw()]];
      }
      case "sql twice": {
        const cursor = sql.exec(args[0]);
        return [cursor.toArray(), cursor.toArray()];
      }
      case "sql counts": {
        const cursor = sql.exec(args[0], ...real(args.slice(1)));
        cursor.toArray();
        return [cursor.rowsRead, cursor.rowsWritten];
      }
      case "throw now":
        throw failure(...args);
      case "catch now":
        try {
          return args[0].map((one) => plain(this.sync(one)));
        } catch (error) {
          return shown(error);
        }
      case "transactionSync":
        return this.ctx.storage.transactionSync(() => args[0].map((one) => plain(this.sync(one))));
      default:
        throw new Error(`an actor knows no ${op}`);
    }
  }
}
