// The programs in a Worker, with the SDK of major version 4.
import { serve } from "inngest-v4/cloudflare";
import { programs } from "./programs.js";
import { kit } from "./sdk_v4.js";

let handler;

export default {
  fetch(request, env, context) {
    if (handler === undefined) {
      const made = kit(env);
      handler = serve({ client: made.client, functions: programs(made) });
    }
    return handler(request, env, context);
  },
};
