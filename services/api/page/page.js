// What the page knows, when it asks, and what its buttons do.

import { follow, get, post, Problem, session } from "./api.js";
import { h } from "./charts.js";
import * as views from "./views.js";

const $ = (name) => document.getElementById(name);
const RANK = { viewer: 0, operator: 1, approver: 2 };
const known = { me: null, status: null, qa: null, canary: null, older: null, incarnation: null, ask: null };
const POINTS = 240;
let stopping = new AbortController();

const may = (role) => known.me && RANK[known.me.role] >= RANK[role];
const show = (place, nodes) => $(place).replaceChildren(...nodes);

// The gatekeeper takes an approval as the second approver's agreement where one has forced the candidate.
const approves = ({ candidate, waiting: { forced } }) => (forced?.release === candidate
  ? `${forced.actor} has forced ${views.short(candidate)}. Your approval agrees to that: it is promoted now, past the gates that have not cleared.`
  : `${views.short(candidate)} may be promoted once every gate has cleared.`);

const ORDERS = [
  { id: "pause", title: "Pause", role: "operator", path: "/pause", when: (s) => !s.paused, text: () => "Nothing is staged, grown or promoted until somebody resumes. Serving, aborts and rollbacks go on." },
  { id: "resume", title: "Resume", role: "operator", path: "/resume", when: (s) => s.paused, text: (s) => `Ends: ${s.paused?.line ?? "the pause"}` },
  { id: "approve", title: "Approve", role: "approver", path: "/approve", when: (s) => s.phase === "canary" && s.candidate, body: (s) => ({ release: s.candidate }), text: approves },
  { id: "promote", title: "Promote", role: "approver", path: "/swap", when: (s) => s.candidate, force: true, body: (s, force) => ({ release: s.candidate, force }), text: (s) => `${views.short(s.candidate)} becomes active, ${views.short(s.active?.release)} stays one write away.` },
  { id: "abort", title: "Abort", role: "operator", danger: true, path: "/abort", when: (s) => s.candidate, body: (s) => ({ release: s.candidate }), text: (s) => `The examination or canary of ${views.short(s.candidate)} ends. ${views.short(s.active?.release)} keeps serving.` },
  { id: "rollback", title: "Roll back", role: "operator", danger: true, path: "/rollback", when: (s) => s.previous && !s.revoked.includes(s.previous), body: (s) => ({ release: s.previous }), text: (s) => `${views.short(s.previous)} serves again: adapters, indexes and router rules in one write. ${views.short(s.active?.release)} is revoked and cannot come back.` },
];

const changeOrder = (change, verdict) => ({
  title: verdict === "approve" ? "Approve change" : "Reject change", danger: verdict === "reject", path: `/pr/${change.id}/${verdict}`,
  text: () => (verdict === "approve" ? `${change.id} by ${change.author} becomes a release of its own, examined and judged like any other. A rollback undoes it.` : `${change.id} by ${change.author} ends here. It can be proposed anew.`),
});

function buttons() {
  const status = known.status;
  const wanted = ORDERS.filter((order) => (order.id === "pause" ? !status?.paused : order.id === "resume" ? status?.paused : true));
  const nodes = wanted.map((order) => {
    const allowed = may(order.role), possible = status?.phase && order.when(status);
    const why = !allowed ? `needs the role ${order.role}` : !possible ? "not now" : null;
    return h("button", { type: "button", id: `do-${order.id}`, class: order.danger ? "danger" : "", disabled: why !== null, title: why, on: { click: () => confirmOrder(order) } }, `${order.title}…`);
  });
  const focused = document.activeElement?.id;
  show("actions", nodes);
  if (focused?.startsWith("do-")) $(focused)?.focus();
}

function confirmOrder(order, { force = false } = {}) {
  const status = known.status, dialog = $("dialog");
  $("dialog-title").textContent = `${order.title}?`;
  // Somebody may force the candidate while the question stands there: then it says so.
  const ask = () => { $("dialog-text").textContent = order.text({ ...status, waiting: known.status.waiting }); };
  // An answer may come after its question was closed, while another one stands there.
  const stands = () => dialog.open && known.ask === ask;
  known.ask = ask;
  ask();
  $("dialog-go").textContent = order.title;
  $("dialog-go").disabled = false;
  $("dialog-go").className = order.danger ? "primary danger" : "primary";
  $("dialog-error").textContent = "";
  $("reason").value = "";
  const box = h("input", { type: "checkbox", id: "force" });
  box.checked = force;
  show("dialog-extra", order.force ? [h("label", { class: "check", for: "force" }, box, h("span", {}, "Force it without the evidence. It waits until a second approver, with another key, agrees."))] : []);
  $("dialog-form").onsubmit = async (event) => {
    event.preventDefault();
    $("dialog-go").disabled = true;
    try {
      const told = await post(order.path, { reason: $("reason").value.trim(), ...(order.body?.(status, box.checked) ?? {}) });
      if (stands()) dialog.close();
      toast(`${order.title}: ${told.detail || "published; nobody has said yet what came of it"}`, false);
      refresh();
    } catch (error) {
      const why = [error.message, ...(error.document?.missing ?? [])].join("\n");
      if (stands()) $("dialog-error").textContent = why;
      else toast(`${order.title}: ${why}`, true);
    } finally {
      if (known.ask === ask) $("dialog-go").disabled = false;
    }
  };
  dialog.showModal();
  $("reason").focus();
}

function toast(text, isBad) {
  const node = h("div", { class: isBad ? "toast bad" : "toast" }, text);
  $("toasts").append(node);
  setTimeout(() => node.remove(), isBad ? 12000 : 7000);
}

function banner(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text ?? "";
}

function drawStatus() {
  const status = known.status;
  if (!status) return;
  show("now", views.nowLine(status));
  show("twins", views.twins(status));
  show("feedback", views.feedback(status));
  show("health", views.health(status));
  document.title = status.phase && status.phase !== "steady" ? `${status.phase} · TwinLoop` : "TwinLoop operations";
  buttons();
  if ($("dialog").open) known.ask();
}

function drawStage() {
  $("stage-sub").textContent = views.stageTitle(known.status, known.canary);
  show("stage-body", views.stage(known.status, known.qa, known.canary));
}

// Returns how many the list did not have yet.
function addDecisions(decisions, { isFresh, atEnd }) {
  const list = $("decisions"), unknown = decisions.filter((decision) => !list.querySelector(`[data-epoch="${decision.epoch}"]`));
  const items = unknown.map((decision) => views.decisionItem(decision, isFresh));
  atEnd ? list.append(...items) : list.prepend(...items);
  return items.length;
}

async function older() {
  const page = await get(`/history?limit=30${known.older ? `&before=${known.older}` : ""}`);
  addDecisions(page.decisions, { isFresh: false, atEnd: true });
  known.older = page.before;
  $("older").hidden = !page.before;
}

async function loadStage(points = POINTS) {
  const [qa, canary] = await Promise.all([get("/qa"), get(`/canary?points=${points}`)]);
  if (points === 1 && known.canary?.release === canary.release) {
    const earlier = known.canary.series.filter((point) => !canary.series.some((newer) => newer.at <= point.at));
    canary.series = [...earlier, ...canary.series].slice(-2 * POINTS);
  }
  Object.assign(known, { qa, canary });
  drawStage();
}

async function loadReleases() {
  const found = await get("/releases"), place = $("releases");
  const open = new Set([...place.querySelectorAll("details[open]")].map((node) => node.dataset.release));
  const focused = place.contains(document.activeElement) ? document.activeElement.parentElement.dataset.release : null;
  show("releases", views.releases(found.releases, open));
  if (focused) place.querySelector(`[data-release="${focused}"] summary`)?.focus();
}

async function loadReview() {
  $("review-card").hidden = !may("operator");
  if (!may("operator")) return;
  const approve = ORDERS.find((order) => order.id === "approve"), promote = ORDERS.find((order) => order.id === "promote");
  const [found, proposed] = await Promise.all([get("/review"), get("/pr?limit=100")]);
  const desk = { onApprove: () => confirmOrder(approve), onForce: () => confirmOrder(promote, { force: true }), onChange: (change, verdict) => confirmOrder(changeOrder(change, verdict)), me: known.me.actor, isApprover: may("approver") };
  show("review", views.review(found, proposed.changes, desk));
}

const guarded = (work) => work().catch((error) => (error instanceof Problem && error.status === 401 ? signOut(error.message) : toast(error.message, true)));

// Decisions come in bursts: one refresh follows them all.
let planned = null;
function refresh() {
  clearTimeout(planned);
  planned = setTimeout(() => [loadStage, loadReleases, loadReview].forEach((load) => guarded(load)), 250);
}

// What waits for a person changes without a decision too: a forced wish, an approval asked for, feedback kept aside.
const waits = (status) => JSON.stringify([status.open_changes, status.waiting]);

// Another incarnation is another log: its epochs and offsets begin anew, so nothing known of the old one holds.
function isOtherLog({ incarnation, caught_up: isWhole }) {
  if (!incarnation || !isWhole) return false;
  const before = known.incarnation;
  known.incarnation = incarnation;
  return before !== null && before !== incarnation;
}

let lastPoint = 0;
function onEvent(kind, value) {
  if (kind === "status") {
    const before = known.status;
    known.status = value;
    if (isOtherLog(value)) return location.reload();
    if (before && waits(before) !== waits(value)) guarded(loadReview);
    drawStatus();
    $("stage-sub").textContent = views.stageTitle(value, known.canary);
  } else if (kind === "decision") {
    if (addDecisions([value], { isFresh: true, atEnd: false })) refresh();
  } else if (kind === "progress" && Date.now() - lastPoint > 900) {
    lastPoint = Date.now();
    guarded(() => loadStage(1));
  }
}

function onState(isLive, error) {
  $("live").className = `live ${isLive ? "on" : "off"}`;
  $("live").textContent = isLive ? "live" : "not connected";
  if (error?.status === 401) return signOut(error.message);
  banner(isLive ? null : `The API does not answer${error ? ` (${error.message})` : ""}. What is shown may be old; trying again.`);
}

async function begin() {
  known.me = await get("/whoami");
  $("whoami").textContent = `${known.me.actor}, ${known.me.role}`;
  $("sign-in").hidden = true;
  $("board").hidden = $("who").hidden = false;
  $("decisions").replaceChildren();
  stopping = new AbortController();
  const status = get("/status").then((found) => { known.status = found; isOtherLog(found); drawStatus(); });
  await Promise.all([status, older(), loadStage(), loadReleases(), loadReview()]);
  drawStage();
  performance.mark("board-complete");
  follow({ onEvent, onState, signal: stopping.signal });
}

function signOut(why = "") {
  stopping.abort();
  session.token = null;
  Object.assign(known, { me: null, status: null, qa: null, canary: null, older: null, incarnation: null });
  banner(null);
  $("board").hidden = $("who").hidden = true;
  show("now", []);
  $("sign-in").hidden = false;
  $("sign-in-error").textContent = why;
  $("token").value = "";
  $("token").focus();
}

$("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  session.token = $("token").value.trim();
  try {
    await begin();
    $("main").focus();
  } catch (error) {
    signOut(error instanceof Problem && error.status === 401 ? "This token is not known, or it was withdrawn." : error.message);
  }
});
$("sign-out").addEventListener("click", () => signOut());
$("older").addEventListener("click", () => guarded(older));
$("dialog-cancel").addEventListener("click", () => $("dialog").close());

if (session.token) begin().catch((error) => signOut(error.message));
else signOut();
