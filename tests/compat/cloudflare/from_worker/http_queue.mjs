// A Worker whose queue is Stepwell's, by the HTTP API that Cloudflare's queues have: `send` and `sendBatch` as of a binding, and pulling.
//
// Vars: QUEUES_URL (up to `/accounts`), ACCOUNT_ID, QUEUE_ID. Secret: QUEUES_TOKEN. With Cloudflare's own URL and ids it works with its queues.

/** A queue behind the API. */
class HttpQueue {
  constructor(env) {
    this.url = `${env.QUEUES_URL}/accounts/${env.ACCOUNT_ID}/queues/${env.QUEUE_ID}/messages`;
    this.token = env.QUEUES_TOKEN;
  }

  async ask(path, body) {
    const answer = await fetch(this.url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${this.token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
    return (await answer.json()).result;
  }

  async send(body, { contentType = "json", delaySeconds } = {}) {
    await this.ask("", { body, content_type: contentType, delay_seconds: delaySeconds });
  }

  async sendBatch(messages, { delaySeconds } = {}) {
    const written = [...messages].map((one) => ({
      body: one.body,
      content_type: one.contentType ?? "json",
      delay_seconds: one.delaySeconds,
    }));
    await this.ask("/batch", { messages: written, delay_seconds: delaySeconds });
  }

  /** Messages, each held for this consumer until the timeout has passed. */
  async pull({ batchSize = 5, visibilityTimeoutMs = 30_000 } = {}) {
    const { messages } = await this.ask("/pull", { batch_size: batchSize, visibility_timeout_ms: visibilityTimeoutMs });
    return messages.map((one) => ({
      id: one.id,
      timestamp: new Date(one.timestamp_ms),
      attempts: one.attempts,
      lease: one.lease_id,
      body: read(one.body, one.metadata["CF-Content-Type"]),
    }));
  }

  /** What became of pulled messages: done, or to come again. */
  async settle(acks, retries) {
    return await this.ask("/ack", {
      acks: acks.map((message) => ({ lease_id: message.lease })),
      retries: retries.map(({ message, delaySeconds }) => ({ lease_id: message.lease, delay_seconds: delaySeconds })),
    });
  }
}

/** A pulled body: text comes as it is, json and bytes in base64. */
function read(body, contentType) {
  if (contentType === "text") return body;
  const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
  return contentType === "json" ? JSON.parse(new TextDecoder().decode(bytes)) : bytes;
}

/** The work: an order that says so fails the first time. */
function handle(message) {
  if (message.body.fails && message.attempts === 1) throw new Error("not today");
}

/** Pull once, do what came, and say what became of it. */
async function work(queue) {
  const messages = await queue.pull({ batchSize: 10 });
  const done = [];
  const retried = [];
  for (const message of messages) {
    try {
      handle(message);
      done.push(message);
    } catch {
      retried.push({ message, delaySeconds: 2 });
    }
  }
  const settled = messages.length ? await queue.settle(done, retried) : { ackCount: 0, retryCount: 0, warnings: [] };
  const shown = messages.map(({ id, attempts, body }) => ({ id, attempts, body: body instanceof Uint8Array ? [...body] : body }));
  return { messages: shown, ...settled };
}

export default {
  async fetch(request, env) {
    const queue = new HttpQueue(env);
    const { pathname } = new URL(request.url);
    try {
      if (pathname === "/send") {
        const { body, ...options } = await request.json();
        await queue.send(body, options);
        return new Response(null, { status: 202 });
      }
      if (pathname === "/send-batch") {
        const { messages, ...options } = await request.json();
        await queue.sendBatch(messages, options);
        return new Response(null, { status: 202 });
      }
      if (pathname === "/work") return Response.json(await work(queue));
    } catch (error) {
      return Response.json({ error: error.message }, { status: 502 });
    }
    return Response.json({ error: `there is no ${pathname}` }, { status: 404 });
  },

  // A Worker has no loop of its own: a cron trigger pulls.
  async scheduled(controller, env) {
    await work(new HttpQueue(env));
  },
};
