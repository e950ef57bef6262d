// Subscribes with the SDK named by SDK (`realtime`: the package @inngest/realtime; `v4`: the client of npm inngest 4), and prints what
// comes, a JSON line each. CHANNEL and TOPICS name what; KEY is a token made elsewhere, or empty: then the SDK asks for one.
const { SDK, SERVER_URL, CHANNEL, TOPICS, KEY } = process.env;
const topics = TOPICS.split(",");
const say = (line) => console.log(JSON.stringify(line));

async function subscribed() {
  if (SDK === "realtime") {
    const { subscribe, getSubscriptionToken } = await import("@inngest/realtime");
    const { Inngest } = await import("inngest");
    const app = new Inngest({ id: "subscriber", baseUrl: SERVER_URL });
    const token = KEY ? { channel: CHANNEL, topics, key: KEY } : await getSubscriptionToken(app, { channel: CHANNEL, topics });
    return subscribe({ app, ...token });
  }
  const { Inngest } = await import("inngest-v4");
  const app = new Inngest({ id: "subscriber", baseUrl: SERVER_URL });
  if (KEY) {
    const { subscribe } = await import("inngest-v4/realtime");
    return subscribe({ channel: CHANNEL, topics, key: KEY, apiBaseUrl: SERVER_URL });
  }
  return app.realtime.subscribe({ channel: CHANNEL, topics });
}

const stream = await subscribed();
say({ open: true });
for await (const message of stream) {
  const { channel, topic, kind, data, runId, streamId } = message;
  say({ channel, topic, kind, data, runId, streamId });
}
say({ closed: true });
process.exit(0);
