// One app on the SDK named by SDK (v3 or v4): functions that publish, in steps and outside of them, as the SDK's users write it.
import { createServer } from "node:http";

const v4 = process.env.SDK === "v4";
const { Inngest, serve, publishing } = v4 ? await newer() : await older();
const baseUrl = process.env.SERVER_URL;

async function newer() {
  const { Inngest, openai } = await import("inngest-v4");
  const { serve } = await import("inngest-v4/node");
  const { channel } = await import("inngest-v4/realtime");
  const orders = channel({ name: (id) => `orders:${id}`, topics: { status: {}, words: {} } });
  const publishing = (inngest) => [
    inngest.createFunction({ id: "publisher", triggers: [{ event: "rt/go" }] }, async ({ event, step, runId }) => {
      const of = orders(event.data.id);
      await step.realtime.publish("said", of.status, { at: "start", n: 1 });
      await step.run("inside", () => inngest.realtime.publish(of.status, { at: "inside", n: 2 }));
      await step.run("streamed", async () => {
        const res = await inngest.inngestApi.publish({ channel: of.name, topics: ["words"], runId }, streamOf(["one ", "zwei ü ", "three"]));
        if (!res.ok) throw new Error(res.error);
      });
      return "published";
    }),
    inngest.createFunction({ id: "slow", triggers: [{ event: "rt/slow" }] }, async ({ step }) => {
      await step.waitForEvent("hold", { event: "rt/release", timeout: "1m" });
      return await step.run("last", () => ({ done: true }));
    }),
    inngest.createFunction({ id: "asks", triggers: [{ event: "rt/ask" }] }, async ({ event, step }) => {
      const { provider, key } = event.data;
      const body = { messages: [{ role: "user", content: "hello" }], schema: { z: 1, a: 2 } };
      const model = openai({ model: "m-1", apiKey: key, baseUrl: provider });
      const asked = await step.ai.infer("ask", { model, body, publish: { channel: "answers", topic: "ai" } });
      const res = await step.fetch(`${provider}/echo?q=1`, { method: "PUT", headers: { "x-mine": "1" }, body: "{}" });
      const plain = await step.fetch(`${provider}/plain`);
      return { asked, fetched: [res.status, res.headers.get("content-type"), await res.json()], plain: plain.status };
    }),
  ];
  return { Inngest, serve, publishing };
}

async function older() {
  const { Inngest } = await import("inngest");
  const { serve } = await import("inngest/node");
  const { realtimeMiddleware } = await import("@inngest/realtime/middleware");
  const { channel, topic } = await import("@inngest/realtime");
  const orders = channel((id) => `orders:${id}`).addTopic(topic("status").type()).addTopic(topic("words").type());
  const publishing = (inngest) => [
    inngest.createFunction({ id: "publisher" }, { event: "rt/go" }, async ({ event, step, publish, runId }) => {
      const of = orders(event.data.id);
      await publish(of.status({ at: "start", n: 1 }));
      await step.run("inside", () => publish(of.status({ at: "inside", n: 2 })));
      await step.run("streamed", async () => {
        const res = await inngest.inngestApi.publish({ channel: of.name, topics: ["words"], runId }, streamOf(["one ", "zwei ü ", "three"]));
        if (!res.ok) throw new Error(res.error);
      });
      return "published";
    }),
  ];
  return { Inngest: class extends Inngest { constructor(o) { super({ ...o, middleware: [realtimeMiddleware()] }); } }, serve, publishing };
}

function streamOf(parts) {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async start(controller) {
      for (const part of parts) controller.enqueue(encoder.encode(part));
      controller.close();
    },
  });
}

const inngest = new Inngest({ id: `rt-${process.env.SDK}`, baseUrl, ...(v4 ? { checkpointing: false } : {}) });
createServer(serve({ client: inngest, functions: publishing(inngest) })).listen(Number(process.env.PORT), "127.0.0.1");
