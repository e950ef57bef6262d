// The programs in a Worker, with the SDK of major version 3.
import { serve } from "inngest-v3/cloudflare";
import { programs } from "./programs.js";
import { kit } from "./sdk_v3.js";

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
