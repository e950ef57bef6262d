// The SDK of major version 3, as the programs want it.
import * as sdk from "inngest-v3";

export { sdk };

export function kit(env) {
  const { Inngest, dependencyInjectionMiddleware } = sdk;
  const client = new Inngest({
    id: env.APP_ID,
    baseUrl: env.SERVER_URL,
    middleware: [dependencyInjectionMiddleware({ given: { word: "given" } })],
  });
  const define = (config, triggers, handler) => client.createFunction(config, triggers, handler);
  const message = (channel, topic, data) => [{ channel, topic, data }];
  return { sdk, client, define, env, message, has: new Set() };
}
