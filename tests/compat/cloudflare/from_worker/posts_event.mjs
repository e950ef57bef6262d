// A Worker that hands work over to Stepwell: it posts an event and answers 202 at once; the functions that the event starts run elsewhere.
//
// Vars: STEPWELL_URL. Secret: STEPWELL_EVENT_KEY.
export default {
  async fetch(request, env) {
    if (request.method !== "POST") return Response.json({ error: "POST an order" }, { status: 405 });
    const event = { name: "shop/order.placed", data: await request.json() };
    // Sent twice with the same id, an event starts its functions once: whoever is not sure of an answer may ask again.
    const id = request.headers.get("idempotency-key");
    const answer = await fetch(`${env.STEPWELL_URL}/e/${env.STEPWELL_EVENT_KEY}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(id === null ? event : { ...event, id }),
    });
    // Only what Stepwell has on disk is accepted: anything else is the caller's to send again.
    if (!answer.ok) return Response.json({ error: `Stepwell answered ${answer.status}: ${await answer.text()}` }, { status: 502 });
    const { ids } = await answer.json();
    return Response.json({ event: ids[0] }, { status: 202 });
  },
};
