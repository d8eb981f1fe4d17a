// The page: which user, which conversation, which turn, and what is done when somebody clicks.

import { Refused, auth, caller, dropToken, get, hasToken, keepToken, newId, patiently, post } from "./service.js";
import { OUTBOX, Turn, deliver, follow, outbox } from "./turn.js";
import { h, memory, replace, sessionItem, statusOptions, tick, timeline, turnItem, turnRow } from "./view.js";

const USER = "everturn.user";
const LOOK_ELSEWHERE_MS = 5_000;
const SUGGESTIONS = ["My name is Sana and I live in Karachi", "What do you know about me?", "What time is it?"];
const $ = (id) => document.getElementById(id);

const state = {
  user: null, // who is signed in; named by hand if nobody signs in, or if an operator looks at somebody
  isOperator: false,
  isStranger: false, // the proxy in front has signed nobody in
  session: null,
  turns: [],
  items: new Map(),
  selected: null,
  following: new AbortController(),
};

// ---- who -----------------------------------------------------------------------------------------------------------

/** A query about the user of this page: if somebody else is signed in by now, the service refuses it. */
function asUser(more = {}) {
  return `?${new URLSearchParams({ user_id: state.user, ...more })}`;
}

/** Their messages that the service may not have yet. Those of others who use this browser wait for them. */
function unsent() {
  return state.isOperator ? [] : outbox.all().filter((each) => each.user === state.user);
}

const QUESTIONS = {
  name: ["Welcome to Everturn", "Conversations and what is remembered belong to a name. Which is yours?", "Your name"],
  token: ["Sign in", "Paste a token of your identity provider. It stays in this tab.", "Token"],
  operator: ["Operator", "Users come through the proxy. An operator signs in here; the token stays in this tab.", "Operator's token"],
  user: ["Operator", "You see and steer what belongs to any user. Whose turns do you want to look at?", "User"],
};

const TOKENS = ["token", "operator"];

/** Ask for a name, a token or the user to look at, until there is one. */
function signIn(why = "", asked = { jwt: "token", header: "operator" }[auth] ?? "name") {
  const dialog = $("sign-in");
  if (dialog.open) return;
  const [title, reason, label] = QUESTIONS[asked];
  $("sign-in-title").textContent = title;
  $("sign-in-why").textContent = why || reason;
  $("sign-in-label").textContent = label;
  $("sign-in-field").type = TOKENS.includes(asked) ? "password" : "text";
  $("sign-in-field").removeAttribute("maxlength");
  if (!TOKENS.includes(asked)) $("sign-in-field").maxLength = 256;
  $("sign-in-field").value = "";
  dialog.dataset.asked = asked;
  dialog.showModal();
}

$("sign-in").addEventListener("cancel", (event) => {
  if ($("sign-in").dataset.asked === "operator") $("sign-in-field").value = ""; // who is none can go back
  else event.preventDefault();
});
$("sign-in").addEventListener("close", () => {
  const [given, { asked }] = [$("sign-in-field").value.trim(), $("sign-in").dataset];
  if (!given && asked === "operator") return;
  if (!given) return signIn("", asked);
  if (TOKENS.includes(asked)) keepToken(given);
  else storeOf(asked).setItem(USER, given);
  document.dispatchEvent(new Event("signed-in"));
  begin();
});

/** Where a name is kept: whom an operator looks at ends with the tab, as the token does. */
function storeOf(asked) {
  return asked === "user" ? sessionStorage : localStorage;
}

document.addEventListener("signed-out", ({ detail }) => {
  if (auth === "jwt") return signIn(detail);
  state.isStranger = true;
  say(detail ?? "Nobody is signed in.");
  showWho();
  if (!hasToken()) return;
  dropToken();
  signIn("That is not the operator's token.");
});

// ---- the connection ------------------------------------------------------------------------------------------------

function say(sentence) {
  if ($("connection").textContent !== sentence) $("connection").textContent = sentence;
}

document.addEventListener("out-of-reach", ({ detail: status }) => say(status === 401 ? "Not signed in" : "Connecting again …"));
document.addEventListener("reached", () => say(""));

function announce(sentence) {
  $("announcer").textContent = sentence;
}

/** What `work` gives, for somebody who waits for it; what goes wrong is said. */
async function attempt(work) {
  try {
    const result = await work();
    say("");
    return result;
  } catch (error) {
    say(error instanceof Refused ? error.message : "The service cannot be reached.");
  }
}

// ---- the conversation ----------------------------------------------------------------------------------------------

function place() {
  const query = new URLSearchParams({ session: state.session, ...(state.selected?.id && { turn: state.selected.id }) });
  history.replaceState(null, "", `#${query}`);
}

async function open(session, { turnId, isNew } = {}) {
  state.following.abort();
  state.following = new AbortController();
  Object.assign(state, { session, turns: [], items: new Map(), selected: null });
  $("turns").replaceChildren();
  $("earlier").hidden = true;
  showPanels("");
  const { signal } = state.following;
  for (const entry of unsent().filter((each) => each.session === session)) send(new Turn(entry));
  showConversation();
  if (!isNew) await addEarlier("", signal);
  if (signal.aborted) return;
  select(state.turns.find((each) => each.id === turnId) ?? state.turns.at(-1));
  toEnd();
}

/** Put turns of this conversation before those that are shown: the last ones, or those behind `cursor`. */
async function addEarlier(cursor, signal) {
  const query = asUser({ session_id: state.session, include: "content", ...(cursor && { cursor }) });
  const found = await attempt(() => patiently(() => get(`/turns${query}`), signal));
  if (signal.aborted || !found) return;
  for (const view of found.turns) {
    if (state.turns.some((each) => each.id === view.turn_id)) continue;
    const turn = new Turn({ session: state.session, user: state.user, view });
    addTurn(turn, 0);
    watch(turn);
  }
  $("earlier").hidden = !found.next;
  $("earlier").onclick = () => addEarlier(found.next, signal);
}

/** Show what has come into this conversation elsewhere: in another tab, on another device. */
async function addNewer() {
  const { signal } = state.following;
  const isSending = () => state.turns.some((each) => each.status === "sending"); // one of those may be it
  if (isSending()) return;
  const found = await get(`/turns${asUser({ session_id: state.session, include: "content" })}`).catch(() => null); // it is looked at again soon
  if (!found || signal.aborted || isSending()) return;
  for (const view of found.turns.reverse()) {
    const known = state.turns.find((each) => each.id === view.turn_id);
    const turn = known ?? new Turn({ session: state.session, user: state.user, view });
    if (!known) {
      const isFollowed = state.selected === (state.turns.at(-1) ?? null);
      addTurn(turn);
      if (isFollowed) select(turn);
    } else if (known.hasEnded && known.status !== view.status) { // it was run again
      known.messages.clear();
      known.view = view;
      changed(known);
    }
    watch(turn);
  }
}

/** Look at what may have changed elsewhere. */
async function lookElsewhere() {
  if (document.hidden || $("sign-in").open) return;
  if (state.isStranger && !state.session) begin();
  if (state.session) await Promise.all([listSessions(), addNewer()]);
}

function addTurn(turn, place = state.turns.length) {
  const item = turnItem(turn, { act: (verb) => act(turn, verb), inspect: () => (select(turn), showPanels("details"), showTab("timeline")) });
  $("turns").insertBefore(item, $("turns").children[place] ?? null);
  state.turns.splice(place, 0, turn);
  state.items.set(turn, item);
  changed(turn);
  showConversation();
}

function showConversation() {
  $("welcome").hidden = state.turns.length > 0;
  const title = state.turns[0]?.text?.slice(0, 80) || "New conversation";
  $("title").textContent = title;
  document.title = state.turns.length ? `${title} · Everturn` : "Everturn";
}

/** Show what is new of `turn`; who reads the end of the conversation stays there. */
function changed(turn) {
  const isAtEnd = $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;
  const item = state.items.get(turn);
  if (turn.status === "waiting" && item?.dataset.status !== "waiting") announce("The turn waits for your decision.");
  item?.update();
  if (turn === state.selected) showTimeline();
  if (isAtEnd) toEnd();
}

function toEnd() {
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

let delivered = Promise.resolve();

function send(turn) {
  addTurn(turn);
  select(turn);
  toEnd();
  queue(turn);
}

/** Deliver `turn` after those before it, and follow it. */
function queue(turn) {
  delivered = delivered.then(async () => {
    await deliver(turn, () => changed(turn));
    if (!state.items.has(turn)) return; // another conversation is open
    state.turns.filter((each) => each !== turn && turn.id && each.id === turn.id).forEach(dropTurn);
    changed(turn);
    place();
    listSessions();
    if (turn.id && turn.hasEnded) tellEnd(turn); // it was quick
    else if (turn.id) watch(turn);
  });
}

/** Take a turn away that is there twice: as a message that was sent again, and as a turn of the list. */
function dropTurn(turn) {
  state.turns = state.turns.filter((each) => each !== turn);
  state.items.get(turn).remove();
  state.items.delete(turn);
}

async function watch(turn) {
  const { signal } = state.following;
  if (turn.hasEnded || !state.items.has(turn)) return;
  await follow(turn, () => changed(turn), signal);
  if (!signal.aborted) tellEnd(turn);
}

/** Say to who cannot see it that `turn` has ended, and show what that changes. */
function tellEnd(turn) {
  const ended = { completed: `Reply: ${turn.reply}`, failed: "The turn failed.", cancelled: "The turn was cancelled." };
  announce(ended[turn.status]);
  showMemory();
  if (!$("all").hidden) listTurns();
  listSessions();
}

async function act(turn, verb) {
  if (verb === "resend") {
    turn.refusal = turn.delay = null;
    changed(turn);
    return queue(turn);
  }
  await attempt(async () => {
    if (verb === "rerun") turn.messages.clear();
    turn.view = await post(`/turns/${encodeURIComponent(turn.id)}/${verb}`);
    changed(turn);
    turn.look();
    watch(turn);
  });
}

async function decide(turn, approval, decision, reason) {
  const path = `/turns/${encodeURIComponent(turn.id)}/approvals/${encodeURIComponent(approval.call_id)}`;
  await attempt(async () => {
    turn.view = await post(path, { decision, ...(reason && { reason }) });
    changed(turn);
    turn.look();
  });
}

function select(turn) {
  state.items.get(state.selected)?.classList.remove("selected");
  state.selected = turn ?? null;
  state.items.get(turn)?.classList.add("selected");
  place();
  showTimeline();
}

let timelineShown = null;

function showTimeline() {
  const turn = state.selected;
  const next = JSON.stringify([turn?.view, turn?.status]);
  if (next === timelineShown) return;
  timelineShown = next;
  replace($("timeline"), timeline(turn, { act: (verb) => act(turn, verb), decide: (...given) => decide(turn, ...given) }));
}

// ---- beside the conversation ---------------------------------------------------------------------------------------

let sessionsShown = []; // behind the first part of the list, by "Show older"

/** Show the conversations, or `cursor` and more of them. */
async function listSessions(cursor) {
  const found = await get(`/sessions${asUser(cursor && { cursor })}`).catch(() => null); // it is looked at again soon
  if (!found) return;
  const isKnown = new Set(found.sessions.map(({ session_id: id }) => id));
  sessionsShown = cursor ? [...sessionsShown, ...found.sessions] : [...found.sessions, ...sessionsShown.filter(({ session_id: id }) => !isKnown.has(id))];
  if (cursor || sessionsShown.length === found.sessions.length) {
    $("more-sessions").hidden = !found.next;
    $("more-sessions").onclick = () => listSessions(found.next);
  }
  showSessions();
}

function showSessions() {
  replace($("session-list"), sessionsShown.map((each) => sessionItem(each, each.session_id === state.session, () => openSession(each.session_id))));
}

/** Show the turns of a status, or `cursor` and more of them. */
async function listTurns(cursor) {
  const status = $("status").value;
  const query = asUser({ include: "content", ...(status && { status }), ...(cursor && { cursor }) });
  const found = await attempt(() => get(`/turns${query}`));
  if (!found || status !== $("status").value) return;
  const rows = found.turns.map((view) => turnRow(view, async () => {
    await openSession(view.session_id, { turnId: view.turn_id });
    showTab("timeline");
    showPanels("details");
  }));
  if (cursor) $("turn-list").append(...rows);
  else replace($("turn-list"), rows.length ? rows : h("li", { class: "empty" }, "There is none."));
  $("more-turns").hidden = !found.next;
  $("more-turns").onclick = () => listTurns(found.next);
}

async function openSession(id, options) {
  const opening = open(id, options);
  showSessions();
  await opening;
  $("text").focus();
}

let remembered = null;

async function showMemory() {
  let fault = "";
  try {
    remembered = await get(`/memory${asUser()}`);
  } catch (error) {
    fault = error instanceof Refused && error.status < 500 ? error.message : "Memory is out of reach at the moment. Turns go on without it and say so.";
  }
  replace($("memory"), memory(remembered, fault, showMemory));
  showWho();
}

function showWho() {
  if (state.isStranger) {
    return replace($("who"), [h("button", { id: "operator", class: "quiet small", type: "button", onclick: () => signIn() }, "Sign in as an operator")]);
  }
  const name = state.user ?? remembered?.user_id ?? "";
  const change = () => (state.isOperator ? signIn("", "user") : signIn());
  replace($("who"), [
    h("span", { class: "muted" }, state.isOperator ? "You look at" : "You are"), h("strong", {}, name),
    (auth === "none" || state.isOperator) && h("button", { id: "other-user", class: "quiet small", type: "button", onclick: change }, "Change"),
  ]);
}

const TABS = ["timeline", "memory", "all"];

function showTab(name) {
  for (const each of TABS) {
    $(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    $(`tab-${each}`).tabIndex = each === name ? 0 : -1;
    $(each).hidden = each !== name;
  }
  if (name === "memory") showMemory();
  if (name === "all") listTurns();
}

$("status").append(...statusOptions());
$("status").addEventListener("change", () => listTurns());
for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => showTab(name));
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const at = TABS.findIndex((name) => event.target.id === `tab-${name}`);
  if (!step || at < 0) return;
  const next = TABS[(at + step + TABS.length) % TABS.length];
  showTab(next);
  $(`tab-${next}`).focus();
});

// ---- narrow windows: one panel over the conversation at a time -----------------------------------------------------

function showPanels(name) {
  document.body.dataset.open = name;
  $("open-sessions").setAttribute("aria-expanded", String(name === "sessions"));
  $("open-details").setAttribute("aria-expanded", String(name === "details"));
}

function toggle(name) {
  showPanels(document.body.dataset.open === name ? "" : name);
  if (document.body.dataset.open === name) $(name).querySelector("button").focus();
}

$("open-sessions").addEventListener("click", () => toggle("sessions"));
$("open-details").addEventListener("click", () => toggle("details"));
$("close-details").addEventListener("click", () => (showPanels(""), $("open-details").focus()));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !document.body.dataset.open) return;
  const opener = $(`open-${document.body.dataset.open}`);
  showPanels("");
  opener.focus();
});

// ---- writing -------------------------------------------------------------------------------------------------------

async function write(text) {
  // The dialog can be gone a moment before what it gave is known.
  while (auth === "jwt" && !(await identified)) await new Promise((resolve) => document.addEventListener("signed-in", resolve, { once: true }));
  if (!(await identified)) return void ($("text").value ||= text);
  const turn = new Turn({ text, session: state.session, user: state.user, key: newId() });
  outbox.add(turn);
  send(turn);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  $("text").value = "";
  write(text);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("new-session").addEventListener("click", () => openSession(newId(), { isNew: true }));
$("suggestions").append(...SUGGESTIONS.map((text) => h("li", {}, h("button", { type: "button", class: "suggestion", onclick: () => write(text) }, text))));

// ---- start ---------------------------------------------------------------------------------------------------------

/** Find out who is there, or ask; whether that is known. */
async function identify() {
  if (auth === "jwt" && !hasToken()) return signIn();
  state.isStranger = false;
  const found = auth === "none" ? { operator: false } : await caller();
  if (!found) return false; // what is said or asked then: "signed-out"
  state.isOperator = found.operator;
  const asked = state.isOperator ? "user" : auth === "none" && "name"; // of which user, an operator has to say
  state.user = asked ? storeOf(asked).getItem(USER) : found.user_id;
  if (!state.user) return signIn("", asked);
  document.body.classList.toggle("operator", state.isOperator);
  return true;
}

let identified; // a message that is written before waits for it, since it has no user and no conversation yet

function begin() {
  identified = identify();
  return identified.then((isKnown) => isKnown && start());
}

async function start() {
  const there = new URLSearchParams(location.hash.slice(1));
  const session = there.get("session") ?? unsent()[0]?.session;
  sessionsShown = [];
  listSessions();
  showMemory();
  $("text").focus();
  if (state.isOperator) showTab("all");
  await open(session ?? newId(), { turnId: there.get("turn"), isNew: !session });
}

window.addEventListener("hashchange", begin);
window.addEventListener("storage", ({ key }) => key === OUTBOX && lookElsewhere()); // another tab has sent something
document.addEventListener("visibilitychange", () => {
  for (const turn of state.turns) turn.look();
  lookElsewhere();
});
setInterval(lookElsewhere, LOOK_ELSEWHERE_MS);
setInterval(tick, 1_000);
begin();
