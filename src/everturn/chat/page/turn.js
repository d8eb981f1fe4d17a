// A turn as this page knows it: what was said, what the service shows of it, and the words that have come so far.

import { Refused, auth, caller, events, get, patiently, post } from "./service.js";

export const OUTBOX = "everturn.outbox";
// With tokens, another tab may be another user: what is kept is kept with the token.
const kept = auth === "jwt" ? sessionStorage : localStorage;
const LOOK_EVERY_MS = 1_000;
const LOOK_RARELY_MS = 3_000;

export class Turn {
  /** `key` is the Idempotency-Key of a message that is still to be delivered; `view` is the service's `Turn`. */
  constructor({ text, session, user, key = null, view = null }) {
    Object.assign(this, { text: text ?? view?.text, session, user, key, view });
    this.refusal = null;
    this.delay = null; // of a message that is not taken now: `why`, and `until` when
    this.isFollowed = false;
    this.messages = new Map();
    this.lastEvent = "";
    this.look = () => {};
  }

  get id() {
    return this.view?.turn_id;
  }

  get status() {
    return this.view?.status ?? (this.refusal ? "refused" : "sending");
  }

  get hasEnded() {
    return ["completed", "failed", "cancelled", "refused"].includes(this.status);
  }

  /** The reply, or what there is of it. */
  get reply() {
    return this.view?.reply?.reply ?? [...this.messages.values()].join("\n\n");
  }

  apply({ id, event }) {
    this.lastEvent = id;
    switch (event.type) {
      case "RUN_STARTED":
        this.messages.clear();
        break;
      case "MESSAGES_SNAPSHOT": // the words of a dead attempt are not in it
        this.messages = new Map(event.messages.filter((each) => each.role === "assistant").map((each) => [each.id, each.content ?? ""]));
        break;
      case "TEXT_MESSAGE_START":
        this.messages.set(event.messageId, "");
        break;
      case "TEXT_MESSAGE_CONTENT":
        this.messages.set(event.messageId, (this.messages.get(event.messageId) ?? "") + event.delta);
        break;
      case "TEXT_MESSAGE_END":
        break;
      default:
        this.look();
    }
    return event.type === "RUN_ERROR" || (event.type === "RUN_FINISHED" && event.outcome?.type !== "interrupt");
  }
}

/** Messages that the service may not have yet, each with its user. They outlive the page, and each is sent again under its key. */
export const outbox = {
  all() {
    return JSON.parse(kept.getItem(OUTBOX) ?? "[]");
  },
  add({ key, session, user, text }) {
    kept.setItem(OUTBOX, JSON.stringify([...this.all(), { key, session, user, text }]));
  },
  remove({ key }) {
    kept.setItem(OUTBOX, JSON.stringify(this.all().filter((each) => each.key !== key)));
  },
};

/** Deliver the message of `turn` once, however often it must be sent; `changed` is called if that takes its time.

It names its user, so that the service refuses it if somebody else has signed in meanwhile; then it is kept for its user.
*/
export async function deliver(turn, changed) {
  const body = { user_id: turn.user, text: turn.text, metadata: { session_id: turn.session } };
  const headers = { "idempotency-key": turn.key, prefer: "respond-async" };
  const attempt = () => post("/chat/", body, headers).catch((error) => {
    turn.delay = error.status === 429 ? { why: error.message, until: error.retryAt } : null;
    changed();
    throw error;
  });
  try {
    const { turn_id: id } = await patiently(attempt);
    turn.view = await load(id);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const id = error.problem.turn_id; // it was taken, and has ended without a reply
    if (id) turn.view = await load(id);
    else turn.refusal = error.message;
    if (error.isForLater) return; // kept until its user sends it again
    if (error.status === 403 && auth !== "none" && (await caller())?.user_id !== turn.user) {
      turn.refusal = "Somebody else has signed in. This message is kept in this browser until its user is back.";
      return;
    }
  }
  outbox.remove(turn);
}

/** The service's `Turn`, with its text and what its calls said. */
function load(id, signal) {
  return patiently(() => get(`/turns/${encodeURIComponent(id)}?include=content`), signal);
}

/** Keep `turn` up to date until it has ended or `signal` says so; `changed` is called after each piece of news. */
export async function follow(turn, changed, signal) {
  if (turn.isFollowed) return;
  turn.isFollowed = true;
  let listening = null;
  try {
    while (!signal.aborted) {
      turn.view = await patiently(() => get(`/turns/${encodeURIComponent(turn.id)}`), signal);
      if (turn.hasEnded) turn.view = await load(turn.id, signal);
      changed();
      if (turn.hasEnded) return;
      // One that stands still has no words to tell, a tab behind others shows none, and a browser opens six connections
      // to a service at most, for all its tabs.
      if (turn.status !== "running" || document.hidden) {
        listening?.abort();
        listening = null;
      } else if (!listening) {
        listening = new AbortController();
        listen(turn, changed, AbortSignal.any([signal, listening.signal]));
      }
      await nextLook(turn);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    listening?.abort();
    turn.isFollowed = false;
  }
}

/** Resolve when the turn is to be looked at again: after a moment, or when an event says that it has moved on. */
function nextLook(turn) {
  const isSlow = document.hidden || turn.status !== "running";
  return new Promise((resolve) => {
    turn.look = resolve;
    setTimeout(resolve, isSlow ? LOOK_RARELY_MS : LOOK_EVERY_MS);
  });
}

/** Hear the words of `turn`, behind the last event that was heard, over as many connections as it takes. */
async function listen(turn, changed, signal) {
  const hear = async () => {
    for await (const event of events(turn.id, turn.lastEvent, signal)) {
      if (signal.aborted) return;
      const isLast = turn.apply(event);
      changed();
      if (isLast) return;
    }
    throw new TypeError("the stream was cut");
  };
  await patiently(hear, signal).catch((error) => {
    if (!signal.aborted) console.warn(error.message);
  });
}
