// Calls to the API with the token of this tab, and the stream of events.

const KEY = "twinloop.token";

export const session = {
  get token() { return sessionStorage.getItem(KEY); },
  set token(value) { value === null ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, value); },
};

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `status ${status}`);
    this.status = status;
    this.document = document;
  }
}

const bearer = () => ({ Authorization: `Bearer ${session.token}` });

async function problemOf(response) {
  const body = await response.json().catch(() => ({ title: response.statusText }));
  return new Problem(response.status, body);
}

export async function get(path) {
  const response = await fetch(path, { headers: bearer() });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

// 128 random bits. `crypto.randomUUID` is there on https and localhost only; this is there on every address.
const freshKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export async function post(path, body) {
  const headers = { ...bearer(), "Content-Type": "application/json", "Idempotency-Key": freshKey() };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

// EventSource cannot send a token in a header, and a token in an address would end up in logs: so the stream is read by hand.
export async function follow({ onEvent, onState, signal }) {
  let last = null;
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 8000)) {
    try {
      const headers = last === null ? bearer() : { ...bearer(), "Last-Event-ID": last };
      // What was logged between the page's first look and this is among the last 20; what it knows already it passes over.
      const response = await fetch("/decisions?last=20", { headers, signal });
      if (!response.ok) throw await problemOf(response);
      onState(true, null);
      wait = 500;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const event = parse(block);
          if (event.id !== null) last = event.id;
          if (event.data) onEvent(event.kind, JSON.parse(event.data));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && (error.status === 401 || error.status === 403)) { onState(false, error); return; }
      onState(false, error);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function parse(block) {
  const event = { id: null, kind: "message", data: "" };
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("event: ")) event.kind = line.slice(7);
    else if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return event;
}
