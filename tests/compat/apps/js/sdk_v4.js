// The SDK of major version 4, as the programs want it. CHECKPOINTING=0 turns off what is its default.
import * as sdk from "inngest-v4";

export { sdk };

export function kit(env) {
  const { Inngest, dependencyInjectionMiddleware } = sdk;
  const client = new Inngest({
    id: env.APP_ID,
    baseUrl: env.SERVER_URL,
    ...(env.CHECKPOINTING === "0" ? { checkpointing: false } : {}),
    middleware: [dependencyInjectionMiddleware({ given: { word: "given" } })],
  });
  const define = (config, triggers, handler) => client.createFunction({ ...config, triggers }, handler);
  const message = (channel, topic, data) => [{ channel, topic }, data];
  return { sdk, client, define, env, message, has: new Set(["group", "jitter"]) };
}
