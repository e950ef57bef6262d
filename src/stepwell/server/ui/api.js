// Requests to the server. A refusal is an error with the server's own sentence.

export class LoginNeeded extends Error {}

export async function ask(path, body, method) {
  const options = body === undefined ? { method: method ?? "GET" } : { method: method ?? "POST", headers: { "content-type": "application/json" }, body: typeof body === "string" ? body : JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server could not be reached. Is it running?");
  }
  const text = await response.text();
  let answer = null;
  try { answer = text ? JSON.parse(text) : null; } catch { /* told below */ }
  if (response.status === 401 && path !== "/api/login") throw new LoginNeeded(answer?.error ?? "log in first");
  if (!response.ok) throw new Error(answer?.error ?? `The server answered HTTP ${response.status}.`);
  return answer;
}

// Calls back with the id of each run that changes; falls back to a regular call where the stream is cut.
export function listen(onChange, onState) {
  const source = new EventSource("/api/live");
  source.onopen = () => onState("live");
  source.onmessage = (message) => onChange(JSON.parse(message.data).run_id);
  source.onerror = () => onState("reconnecting…");
  const timer = setInterval(() => { if (source.readyState !== EventSource.OPEN) onChange(null); }, 3000);
  return () => { source.close(); clearInterval(timer); };
}
