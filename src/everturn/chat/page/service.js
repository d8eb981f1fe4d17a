// The chat service, as the page calls it: signed in, patient, and resumable.

export const auth = document.documentElement.dataset.auth;
const TOKEN = "everturn.token";
// The service says something at least every 15 seconds; what is silent for longer is a lost connection.
const SILENCE_MS = 40_000;
const MOST_WAIT_S = 60;

/** The service gave an answer that is no success; `detail` is its sentence. */
export class Refused extends Error {
  constructor(status, problem, retryAfterS) {
    super(problem.detail ?? `The service answered ${status}.`);
    this.status = status;
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }

  /** Too much was asked for, and the wait is too long for a page: tokens of the day that are used up. */
  get isForLater() {
    return this.status === 429 && this.retryAfterS > MOST_WAIT_S;
  }

  /** When the same request may be answered, if the service says it. */
  get retryAt() {
    return this.retryAfterS && new Date(Date.now() + this.retryAfterS * 1_000).toISOString();
  }

  /** Whether the same request may be answered soon. */
  get isTransient() {
    return !this.isForLater && (this.status >= 500 && this.status !== 502 || [401, 408, 425, 429].includes(this.status));
  }
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function dropToken() {
  sessionStorage.removeItem(TOKEN);
}

/** The answer to a request. Throws Refused, or TypeError if the service cannot be reached. */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  const token = auth !== "none" && sessionStorage.getItem(TOKEN);
  const response = await fetch(path, {
    method,
    signal,
    cache: "no-store",
    headers: {
      accept: "application/json",
      ...(body && { "content-type": "application/json" }),
      ...(token && { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: body && JSON.stringify(body),
  });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const isStale = token && token !== sessionStorage.getItem(TOKEN); // somebody has signed in meanwhile
  if (response.status === 401 && !isStale) document.dispatchEvent(new CustomEvent("signed-out", { detail: problem.detail }));
  throw new Refused(response.status, problem, Number(response.headers.get("retry-after")) || undefined);
}

export async function get(path) {
  return (await call("GET", path)).json();
}

export async function post(path, body, headers) {
  return (await call("POST", path, { body, headers })).json();
}

/** Who is signed in, as the service says it: `user_id`, `operator`; nothing if nobody is. */
export async function caller() {
  try {
    return await patiently(() => get("/caller"), undefined, (refused) => refused.isTransient && refused.status !== 401);
  } catch (error) {
    if (error.status !== 401) throw error;
  }
}

/** The events of a turn behind the event `after`, with their ids, until the stream ends or `signal` aborts it. */
export async function* events(turnId, after, signal) {
  const lost = new AbortController();
  const response = await call("GET", `/turns/${encodeURIComponent(turnId)}/events`, {
    headers: { accept: "text/event-stream", ...(after && { "last-event-id": after }) },
    signal: AbortSignal.any([signal, lost.signal]),
  });
  let timer = setTimeout(() => lost.abort(), SILENCE_MS);
  let [rest, id, data] = ["", after, ""];
  try {
    for await (const chunk of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
      clearTimeout(timer);
      timer = setTimeout(() => lost.abort(), SILENCE_MS);
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("data: ")) data += line.slice(6);
        else if (line === "" && data) {
          yield { id, event: JSON.parse(data) };
          data = "";
        }
      }
    }
  } finally {
    clearTimeout(timer);
    lost.abort();
  }
}

/** What a stream gives; not every browser can iterate over it. */
async function* chunks(stream) {
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
}

/** Do `work` until it succeeds: again after a pause while the service cannot be reached or says that it cannot now. */
export async function patiently(work, signal, mayGoOn = (refused) => refused.isTransient) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8_000)) {
    try {
      const result = await work();
      document.dispatchEvent(new CustomEvent("reached"));
      return result;
    } catch (error) {
      if (error.status === 429) document.dispatchEvent(new CustomEvent("reached"));
      if (signal?.aborted || (error instanceof Refused && !mayGoOn(error))) throw error;
      if (error.status !== 429) document.dispatchEvent(new CustomEvent("out-of-reach", { detail: error.status }));
      await pauseOr(error.retryAfterS ? Math.min(error.retryAfterS, MOST_WAIT_S) * 1_000 : pause, error.status === 401);
      if (signal?.aborted) throw error;
    }
  }
}

/** Wait for a moment; less if the network is back or somebody signs in. Who is signed out waits for that alone. */
function pauseOr(milliseconds, isSignedOut) {
  return new Promise((resolve) => {
    if (!isSignedOut) setTimeout(resolve, milliseconds);
    window.addEventListener("online", resolve, { once: true });
    document.addEventListener("signed-in", resolve, { once: true });
  });
}

/** A random id; `crypto.randomUUID` is there in secure contexts only, and a page in the local network is none. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
