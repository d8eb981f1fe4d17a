// What the page shows of turns, as elements. Nothing here asks the service for anything.

import { show } from "./markdown.js";

const STEPS = {
  fetch_context: "Recall memory and history",
  generate_response: "Write the reply",
  save_conversation: "Save the conversation",
  handle_error: "Close the failed turn",
};
/** Those of a turn that goes well. */
const PLAN = ["fetch_context", "generate_response", "save_conversation"];
const STATUSES = {
  sending: "Sending", refused: "Not accepted", queued: "In line", running: "Running", waiting: "Needs you",
  paused: "Paused", completed: "Completed", failed: "Failed", cancelled: "Cancelled",
};
/** What can be done with a turn, by its status. */
const ACTIONS = {
  queued: ["pause", "cancel"], running: ["pause", "cancel"], waiting: ["pause", "cancel"], paused: ["resume", "cancel"], failed: ["rerun"],
};
const VERBS = { pause: "Pause", cancel: "Cancel", resume: "Resume", rerun: "Run again", resend: "Send again" };

/** An element with properties and children; absent ones are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** Put `children` into `element`; who had the focus in it, and what was typed, is where it was. */
export function replace(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  const typed = [...element.querySelectorAll("input[id], select[id]")].map((field) => [field.id, field.value]);
  element.replaceChildren(...children.flat(2).filter(Boolean));
  for (const [id, value] of typed) {
    const field = document.getElementById(id);
    if (field) field.value = value;
  }
  if (focused) (document.getElementById(focused) ?? element).focus({ preventScroll: true });
}

function pill(status) {
  return h("span", { class: `pill ${status}` }, STATUSES[status] ?? status);
}

/** A message and its reply in the conversation. `act(verb)` steers the turn, `inspect()` opens its timeline. */
export function turnItem(turn, { act, inspect }) {
  const reply = h("div", { class: "reply prose" });
  const foot = h("div", { class: "foot" });
  const item = h(
    "li",
    { class: "turn" },
    h("div", { class: "message" }, h("span", { class: "unseen" }, "You said: "), turn.text ?? ""),
    h("div", { class: "answer" }, h("span", { class: "unseen" }, "Reply: "), reply, foot),
  );
  let shown = "";
  item.update = () => {
    item.dataset.status = turn.status;
    if (turn.reply !== reply.text) show(reply, (reply.text = turn.reply));
    const next = JSON.stringify([turn.view, turn.refusal, turn.delay]);
    if (next !== shown) replace(foot, footOf(turn, act, inspect));
    shown = next;
  };
  return item;
}

function footOf(turn, act, inspect) {
  const { view, status } = turn;
  const failure = turn.refusal ?? view?.error?.message;
  const place = `in-${turn.id ?? turn.key}`;
  const step = view?.steps.at(-1);
  return [
    !turn.hasEnded && h("span", { class: "working" }, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), nowDoing(turn, step)),
    failure && h("p", { class: "failure" }, failure, turn.refusal && until(turn.delay, "Can be sent again")),
    status === "cancelled" && h("p", { class: "failure" }, "This turn was cancelled."),
    view?.reply?.degraded?.length > 0 && h("span", { class: "note" }, `Answered without ${list(view.reply.degraded)}`),
    turn.hasEnded && turn.reply && navigator.clipboard && h("button", { id: `${place}-copy`, class: "quiet small", type: "button", onclick: ({ target }) => copy(turn.reply, target) }, "Copy"),
    turn.refusal && turn.delay && button("resend", act, "small", place),
    status === "failed" && button("rerun", act, "small", place),
    !turn.hasEnded && turn.id && button("cancel", act, "small", place),
    turn.id && h("button", { id: `${place}-inspect`, class: status === "waiting" ? "primary small" : "quiet small", type: "button", onclick: inspect }, status === "waiting" ? "Decide" : "Timeline"),
  ];
}

/** Copy a reply as it was written; the button says so for a moment. */
async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1_500);
}

function until(delay, what) {
  return delay?.until && [` · ${what} `, countdown(delay.until)];
}

function nowDoing({ status, view, delay }, step) {
  if (status === "sending" && delay) return [delay.why, until(delay, "Next try")];
  if (status !== "running") return { sending: "Sending", queued: "In line behind another turn", paused: "Paused", waiting: "Waiting for your decision" }[status];
  if (view.next_attempt_at) return [`${STEPS[step?.name] ?? "The step"}: next try `, countdown(view.next_attempt_at)];
  return STEPS[step?.name] ?? "Starting";
}

function button(verb, act, kind = "", place = "timeline") {
  return h("button", { id: `${place}-${verb}`, class: kind, type: "button", onclick: () => act(verb) }, VERBS[verb]);
}

/** The timeline of a turn: its steps, calls, attempts and waits, and what can be done. `decide(approval, decision)`. */
export function timeline(turn, { act, decide }) {
  if (!turn?.view) return [h("p", { class: "empty" }, "Send a message, and each step of its turn shows up here while it happens."), h("ol", { class: "steps" }, PLAN.map(stepToCome))];
  const { view } = turn;
  const usage = view.reply?.usage;
  return [
    h("header", { class: "turn-head" }, pill(view.status), h("span", { class: "muted" }, "Turn ", view.sequence || "–"), h("span", { class: "grow" }), time(view.created_at, view.finished_at)),
    view.reply?.degraded?.length > 0 && h("p", { class: "notice" }, `Answered without ${list(view.reply.degraded)}: it could not be had in time.`),
    view.approvals?.length > 0 && h("div", { class: "approvals" }, view.approvals.map((each) => approval(each, decide))),
    h("ol", { class: "steps" }, view.steps.map((step) => stepOf(step, view)), view.steps.length === 0 && h("li", { class: "step queued" }, h("div", { class: "step-name" }, view.status === "queued" ? "In line behind another turn" : "Starting")), stepsToCome(turn)),
    view.error && h("p", { class: "failure" }, `${view.error.message} (${view.error.kind})`),
    h("div", { class: "actions" }, (ACTIONS[view.status] ?? []).map((verb) => button(verb, act, verb === "cancel" ? "danger" : ""))),
    h("dl", { class: "facts" }, fact("Model", view.reply?.model), fact("Tokens", usage && `${usage.input_tokens} in · ${usage.output_tokens} out`), fact("Calls", usage && `${usage.model_calls} of models · ${usage.tool_calls} of tools`), fact("Turn id", h("code", {}, view.turn_id))),
  ];
}

function fact(name, value) {
  return value && [h("dt", {}, name), h("dd", {}, value)];
}

/** What is still to be done, if nothing goes wrong. */
function stepsToCome({ view, hasEnded }) {
  const begun = new Set(view.steps.map(({ name }) => name));
  return hasEnded || begun.has("handle_error") ? [] : PLAN.filter((name) => !begun.has(name)).map(stepToCome);
}

function stepToCome(name) {
  return h("li", { class: "step to-come" }, h("div", { class: "step-name" }, STEPS[name]));
}

function stepOf(step, view) {
  const waits = step.status === "retrying" && view.next_attempt_at;
  const calls = step.name === "generate_response" ? (view.calls ?? []) : [];
  return h(
    "li",
    { class: `step ${step.status}` },
    h("div", { class: "step-name" }, STEPS[step.name] ?? step.name, h("span", { class: "grow" }), time(step.started_at, step.finished_at)),
    h("div", { class: "muted" }, step.status, step.attempts > 1 && ` · attempt ${step.attempts}`),
    step.error && h("div", { class: "step-error" }, step.error.message),
    waits && h("div", { class: "step-wait" }, "Next try ", countdown(view.next_attempt_at), h("span", { class: "muted" }, ` at ${clock(view.next_attempt_at)}`)),
    calls.length > 0 && h("ol", { class: "calls" }, calls.map(callOf)),
  );
}

function callOf(call) {
  const tokens = call.tokens && `${call.tokens.input} in · ${call.tokens.output} out`;
  return h(
    "li",
    { class: call.error ? "call failed" : "call" },
    h("span", { class: "kind" }, call.kind),
    h("span", { class: "call-name" }, call.name),
    h("span", { class: "grow" }),
    time(call.started_at, call.finished_at),
    h("div", { class: "muted" }, [call.agent, call.attempts > 1 && `attempt ${call.attempts}`, tokens].filter(Boolean).join(" · ")),
    call.error && h("div", { class: "step-error" }, call.error.message),
    content("Arguments", call.arguments),
    content("Answer", call.answer),
  );
}

function content(name, value) {
  if (value === undefined || value === null) return null;
  return h("details", {}, h("summary", {}, name), h("pre", { tabindex: "0", "aria-label": name }, typeof value === "string" ? value : JSON.stringify(value, null, 2)));
}

function approval(each, decide) {
  const reason = h("input", { id: `reason-${each.call_id}`, placeholder: "Reason (if you reject)", "aria-label": "Reason", maxlength: 500 });
  return h(
    "section",
    { class: "approval", "aria-label": `Approval of ${each.tool}` },
    h("strong", {}, "May it do this?"),
    h("div", { class: "call-name" }, each.tool),
    h("pre", { tabindex: "0", "aria-label": "Arguments" }, typeof each.arguments === "string" ? each.arguments : JSON.stringify(each.arguments, null, 2)),
    each.expires_at && h("p", { class: "muted" }, "Is rejected ", countdown(each.expires_at), " if nobody decides"),
    reason,
    h("div", { class: "actions" },
      h("button", { id: `approve-${each.call_id}`, class: "primary", type: "button", onclick: () => decide(each, "approve") }, "Approve"),
      h("button", { id: `reject-${each.call_id}`, class: "danger", type: "button", onclick: () => decide(each, "reject", document.getElementById(reason.id).value) }, "Reject")),
  );
}

/** A conversation in the list of them. */
export function sessionItem({ session_id: id, title, last_at: at }, isOpen, open) {
  return h("li", {}, h("button", { id: `session-${id}`, type: "button", class: "session", "aria-current": isOpen && "true", onclick: open },
    h("span", { class: "session-title" }, title), h("span", { class: "muted" }, ago(at))));
}

/** A turn in the list of all. */
export function turnRow(view, open) {
  return h("li", {}, h("button", { id: `row-${view.turn_id}`, type: "button", class: "row", onclick: open },
    h("span", { class: "session-title" }, view.text), pill(view.status), h("span", { class: "muted" }, ago(view.created_at))));
}

export function statusOptions() {
  const shown = ["running", "queued", "waiting", "paused", "completed", "failed", "cancelled"];
  return [h("option", { value: "" }, "All turns"), shown.map((status) => h("option", { value: status }, STATUSES[status]))].flat();
}

/** What is remembered of the user; `fault` says why it cannot be shown. */
export function memory(remembered, fault, reload) {
  if (fault) return [h("p", { class: "notice" }, fault), h("button", { id: "memory-again", type: "button", onclick: reload }, "Look again")];
  if (!remembered) return [h("p", { class: "empty" }, "Looking …")];
  return [
    h("h2", {}, remembered.name),
    h("p", { class: "muted" }, `Is spoken to in a ${remembered.preferred_style} style.`),
    h("p", { class: "summary" }, remembered.user_summary),
    h("p", { class: "muted small-print" }, "A conversation is brought into this once it has been quiet for a while."),
  ];
}

/** How long something took, or takes until now. */
function time(from, to) {
  return h("time", { datetime: from, "data-from": from, "data-to": to, class: "muted" }, elapsed(from, to));
}

function countdown(at) {
  return h("time", { datetime: at, "data-until": at }, remaining(at));
}

/** Bring what depends on the clock up to date. */
export function tick() {
  for (const each of document.querySelectorAll("[data-from]:not([data-to])")) each.textContent = elapsed(each.dataset.from);
  for (const each of document.querySelectorAll("[data-until]")) each.textContent = remaining(each.dataset.until);
}

function elapsed(from, to) {
  const ms = Math.max(0, (to ? Date.parse(to) : Date.now()) - Date.parse(from));
  if (to && ms < 1_000) return `${Math.round(ms)} ms`;
  return span(to ? ms : Math.floor(ms / 1_000) * 1_000);
}

function remaining(at) {
  const ms = Date.parse(at) - Date.now();
  return ms <= 0 ? "now" : `in ${span(Math.ceil(ms / 1_000) * 1_000)}`;
}

function span(ms) {
  const seconds = ms / 1_000;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} days`;
}

function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/** When something was, in few words. */
function ago(at) {
  const then = new Date(at);
  const isToday = then.toDateString() === new Date().toDateString();
  return isToday ? then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : then.toLocaleDateString([], { day: "numeric", month: "short" });
}

function list(words) {
  return words.join(" and ");
}
