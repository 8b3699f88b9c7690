// From the API's documents to what is seen. Each function returns nodes and keeps nothing.

import { clock, evidenceChart, h, intervalBar, percent } from "./charts.js";

const KINDS = { ab_start: "info", ab_end: "", promote: "good", bake_end: "good", mirror: "info", canary: "info", ramp: "info", stage: "info", genesis: "", restore: "warn", adopt: "warn", pause: "warn", resume: "", reject: "bad", abort: "bad", rollback: "bad" };
const BECAME = { genesis: "first", stage: "in examination", canary: "in canary", ramp: "in canary", promote: "promoted", bake_end: "promoted", reject: "rejected", abort: "aborted", rollback: "restored" };
const STATUS = { cleared: "good", open: "", breached: "bad", invalid: "warn" };
const GATES = { error_margin: "errors", early_stop: "errors, early stop", p95: "slow answers (p95)", toxicity: "toxic answers", error_trend: "error trend" };
const GROUPS = [
  ["promote", "Speaks for promotion", "every gate has to clear"],
  ["abort", "Speaks against the candidate", "aborts when their mean reaches the limit"],
  ["watch", "Watched", "stops the ramp"],
  ["domain", "By domain", "aborts on harm to one domain"],
  ["guardrail", "Users' ratings", "aborts or holds on thumbs down"],
];

export const short = (digest) => (digest ? digest.slice(0, 8) : "none");
const chip = (text, tone = "") => h("span", { class: `chip ${tone}` }, text);
const id = (digest) => h("span", { class: "id", title: digest ?? "" }, short(digest));
const none = (text) => h("p", { class: "none" }, text);
const day = (at) => new Date(at).toLocaleString([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });
const plural = (count, one) => `${count.toLocaleString()} ${one}${count === 1 ? "" : "s"}`;
export const gateTitle = (name) => { const [, what] = split(name); return GATES[what] ?? what.replaceAll("_", " "); };
const split = (name) => { const at = name.indexOf(":"); return at < 0 ? ["watch", name] : [name.slice(0, at), name.slice(at + 1)]; };

export function nowLine(status) {
  if (!status.phase) return [chip("no decision yet", "warn")];
  const tone = { steady: "good", bake: "good", canary: "info", qa: "info", promoting: "info" }[status.phase];
  return [chip(status.phase, tone), status.paused ? chip("paused", "warn") : null, h("span", {}, `epoch ${status.epoch}`)].filter(Boolean);
}

export function twins(status) {
  if (!status.active) return [none("The gatekeeper has not logged its first decision yet.")];
  return ["blue", "green"].map((slot) => {
    const isActive = status.active.slot === slot, twin = isActive ? status.active : status.shadow;
    const share = isActive ? 1 - status.canary_share : status.canary_share;
    const workers = status.workers.filter((worker) => worker.slot === slot && !worker.stopping);
    const ready = workers.filter((worker) => worker.releases.includes(twin.release)).length;
    const idle = !isActive && twin.release === status.active.release ? "same release, idle" : "";
    return h("article", { class: `twin ${slot} ${isActive ? "active" : ""}`, "aria-label": `slot ${slot}` },
      h("div", { class: "row" }, h("span", { class: "slot" }, slot), h("span", { class: "role" }, isActive ? "active, serves" : status.candidate === twin.release ? "shadow, being judged" : "shadow")),
      h("div", { class: "share" }, percent(share, share * 100 % 1 ? 1 : 0), h("small", {}, "of subjects")),
      h("div", { class: "facts" }, h("span", {}, "release ", id(twin.release)), h("span", {}, `${ready} of ${plural(workers.length, "worker")} ready`), idle ? h("span", {}, idle) : null, !isActive && status.mirror_share ? h("span", {}, `${percent(status.mirror_share)} mirrored`) : null),
      h("div", { class: "meter" }, h("i", { "width%": share * 100 })));
  });
}

export function stage(status, qa, canary) {
  if (status?.phase === "qa" || (qa?.running && !canary?.running)) return examination(qa, true);
  if (isAbTest(status, canary)) return [h("p", { class: "stage-line" }, status.line)];
  if (canary?.running || canary?.release) return judged(canary, qa);
  if (qa?.judged) return examination(qa, false);
  return [none("No candidate. The trainer proposes one when enough feedback or documents wait.")];
}

// A share of users without a candidate: two releases that both served are compared, and none is judged.
const isAbTest = (status, canary) => status?.phase === "canary" && !status.candidate && !canary?.running;

export function stageTitle(status, canary) {
  if (status?.phase === "qa") return `${short(status.candidate)} in its examination`;
  if (canary?.running) return `${short(canary.release)} in its canary, ${percent(canary.share, canary.share * 100 % 1 ? 1 : 0)} of subjects`;
  if (isAbTest(status, canary)) return `A/B test: ${short(status.shadow.release)} answers ${percent(status.canary_share, status.canary_share * 100 % 1 ? 1 : 0)} of subjects`;
  if (canary?.ended) return `last canary: ${short(canary.release)}, ${canary.ended.kind === "promote" ? "promoted" : canary.ended.kind}`;
  return "";
}

function examination(qa, isRunning) {
  const line = h("p", { class: "stage-line" }, qa?.line || "Workers prepare the candidate.");
  if (isRunning || !qa?.rows.length) return [line];
  return [line, examRows(qa.rows)];
}

function examRows(rows) {
  const head = h("tr", {}, ["Limit", "Counted", "Interval", ""].map((text) => h("th", { scope: "col" }, text)));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, rows.map((row) => h("tr", {},
    h("td", {}, row.line), h("td", {}, `${row.count} of ${row.n}`),
    h("td", {}, intervalBar({ low: row.ci_low, high: row.ci_high, shadow: row.rate, active: null, label: `${percent(row.ci_low)} to ${percent(row.ci_high)}` })),
    h("td", {}, chip(row.is_passed ? "passed" : "failed", row.is_passed ? "good" : "bad"))))));
}

function judged(canary, qa) {
  const ended = canary.ended;
  const line = h("p", { class: "stage-line" }, ended ? [h("b", {}, `${ended.kind}: `), ended.line] : [canary.line || "The first closed window is awaited.", canary.needed ? h("span", { class: "sub" }, ` — ${canary.needed}`) : null]);
  if (!canary.gates.length) return [line, qa?.rows.length ? examRows(qa.rows) : null].filter(Boolean);
  const latest = canary.series[canary.series.length - 1]?.gates ?? {};
  return [line, h("div", { class: "stage-grid" }, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Gates" }, gateTable(canary.gates, latest)), evidence(canary))];
}

function gateTable(gates, latest) {
  const heads = ["Gate", "Value against limit", "95 % interval", "e-value", ""];
  const body = h("tbody");
  for (const [kind, title, meaning] of GROUPS) {
    const rows = gates.filter((gate) => split(gate.name)[0] === kind);
    if (!rows.length) continue;
    body.append(h("tr", { class: "group" }, h("th", { colspan: 5, scope: "rowgroup" }, title, h("span", { class: "sub" }, ` · ${meaning}`))));
    for (const gate of rows) body.append(gateRow(gate, latest[gate.name]));
  }
  return h("table", { class: "gates" }, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))), body);
}

function gateRow(gate, point) {
  const between = point && point.low !== null ? `${percent(point.low)} to ${percent(point.high)} of ${Math.round(point.n)}` : "no data yet";
  const beside = point && point.low_active !== null ? `active ${percent(point.low_active)} to ${percent(point.high_active)}` : null;
  return h("tr", { title: gate.line },
    h("td", {}, gateTitle(gate.name)),
    h("td", {}, measured(gate.line)),
    h("td", {}, point ? intervalBar({ low: point.low, high: point.high, shadow: point.share, active: point.share_active, lowActive: point.low_active, highActive: point.high_active, label: beside ? `${between}, ${beside}` : between }) : null,
      h("span", { class: "sub one" }, between), beside ? h("span", { class: "sub one" }, h("br"), beside) : null),
    h("td", { class: "one" }, eValue(point?.e), point?.threshold ? h("span", { class: "sub" }, ` of ${Number(point.threshold.toPrecision(3))}`) : null),
    h("td", {}, chip(gate.status, STATUS[gate.status])));
}

// A gate's line begins with value, sign and limit; what follows is the evidence, which has its own columns.
const measured = (line) => line.replace(/^canary (in \w+: )?/, "").split(/,? (?:harm )?e=/)[0]
  .replace(/^(error|p95|toxicity) /, "").replaceAll("<=", "≤").replaceAll(">=", "≥").replaceAll("_", " ").replace(/(\d) (%|ms|pts)/g, "$1\u00a0$2");

const eValue = (e) => (typeof e !== "number" ? "–" : e >= 1e4 ? e.toExponential(1).replace("e+", "e") : e.toPrecision(3));

function evidence(canary) {
  const names = canary.gates.map((gate) => gate.name).filter((name) => name.startsWith("promote:"));
  const threshold = canary.series[canary.series.length - 1]?.gates[names[0]]?.threshold ?? 20;
  if (!canary.series.length || !names.length) return none("No evidence yet.");
  const against = canary.gates.map((gate) => gate.name).filter((name) => name.startsWith("abort:"));
  const titles = Object.fromEntries([...names, ...against].map((name) => [name, gateTitle(name)]));
  return h("div", {},
    h("h3", {}, "Evidence for promotion over time (e-values)"), evidenceChart(canary.series, names, { threshold, titles, label: "e-values of the promotion gates over time, logarithmic" }),
    against.length ? h("h3", { class: "between" }, "Evidence of harm over time") : null,
    against.length ? evidenceChart(canary.series, against, { threshold, titles, label: "e-values of the abort gates over time, logarithmic" }) : null);
}

export function decisionItem(decision, isFresh) {
  const day = new Date(decision.decided_at).toLocaleString();
  const facts = [`epoch ${decision.epoch}`, `reason ${decision.reason}`, `${decision.state.active} serves ${short(decision.state.active_release ?? decision.state.releases[decision.state.active])}`, day];
  const lines = gateLines(decision.evidence);
  const details = h("details", {},
    h("summary", {}, h("time", { datetime: new Date(decision.decided_at).toISOString(), title: day }, clock(decision.decided_at)), h("span", {}, chip(decision.kind.replace("_", " "), KINDS[decision.kind])), h("span", { class: "line" }, decision.line.replace(new RegExp(`^${decision.kind} `), ""))),
    h("div", { class: "evidence" }, h("p", {}, facts.join(" · ")), lines.length ? h("ul", {}, lines.map((text) => h("li", {}, text))) : null));
  details.addEventListener("toggle", () => {
    const place = details.querySelector(".evidence");
    if (details.open && !place.querySelector("pre")) place.append(h("pre", { tabindex: "0", "aria-label": "Evidence" }, JSON.stringify(decision.evidence, null, 1)));
  });
  return h("li", { class: isFresh ? "fresh" : "", "data-epoch": decision.epoch }, details);
}

function gateLines(evidence) {
  const rows = evidence?.verdict?.gates ?? evidence?.qa?.rows ?? evidence?.gates ?? [];
  return Array.isArray(rows) ? rows.map((row) => row?.line ?? String(row)).filter(Boolean) : [];
}

export function feedback(status) {
  const { statuses, refusals } = status.feedback;
  const steps = [["accepted", "waits to be learnt", ""], ["counted", "counted, teaches nothing", ""], ["trained", "trained, serves now", "good"], ["quarantined", "kept aside", "warn"], ["rejected", "refused", "bad"]];
  const all = Object.values(statuses).reduce((sum, n) => sum + n, 0);
  if (!all) return [none("No feedback yet.")];
  const bars = steps.map(([name, words, tone]) => bar(words, statuses[name] ?? 0, all, tone));
  const reasons = Object.entries(refusals).slice(0, 8);
  const most = Math.max(1, ...reasons.map(([, n]) => n));
  return [h("div", { class: "bars" }, bar("received", all, all, ""), ...bars),
    reasons.length ? h("h3", { class: "between" }, "Why it was refused or kept aside") : null,
    reasons.length ? h("div", { class: "bars" }, reasons.map(([name, n]) => bar(name.replaceAll("_", " "), n, most, "bad"))) : null].filter(Boolean);
}

function bar(words, n, all, tone) {
  return [h("span", {}, words), h("div", { class: `meter ${tone}` }, h("i", { "width%": (100 * n) / all })), h("span", { class: "n" }, n.toLocaleString())];
}

export function health(status) {
  const rows = status.workers.map((worker) => {
    const isBehind = worker.epoch < status.epoch;
    const state = worker.problems.length ? chip("trouble", "bad") : worker.stopping ? chip("stopping", "warn") : isBehind ? chip(`epoch ${worker.epoch}`, "warn") : chip("ready", "good");
    return h("tr", { title: worker.problems.join("; ") }, h("td", {}, worker.worker), h("td", {}, worker.slot ?? "–"), h("td", { class: "num" }, state));
  });
  const lag = status.lag.map((each) => h("tr", {}, h("td", {}, each.topic), h("td", {}, each.group), h("td", { class: "num" }, each.records.toLocaleString())));
  const letters = Object.entries(status.dead_letter_topics);
  return [
    rows.length ? table(["Process", "Slot", ""], rows) : none("No router or worker has said anything in 30 s."),
    h("h3", { class: "between" }, "Records waiting"), lag.length ? table(["Topic", "Read by", "Waiting"], lag) : none("Nothing committed yet."),
    h("h3", { class: "between" }, "Dead letters"),
    status.dead_letters ? h("div", {}, h("p", {}, chip(plural(status.dead_letters, "record"), "bad"), ` ${letters.map(([topic, n]) => `${topic}: ${n}`).join(", ")}`), h("ul", { class: "sub" }, status.recent_dead_letters.slice(0, 4).map((letter) => h("li", {}, `${letter.topic}[${letter.partition}]@${letter.offset}, ${letter.service}: ${letter.error}`)))) : none("None."),
  ];
}

function table(heads, rows) {
  return h("table", {}, h("thead", {}, h("tr", {}, heads.map((text, at) => h("th", { scope: "col", class: at === heads.length - 1 ? "num" : "" }, text)))), h("tbody", {}, rows));
}

// `open` names the releases whose matrix stands open already.
export function releases(list, open = new Set()) {
  if (!list.length) return [none("No release yet.")];
  const domains = ["law", "med", "fin", "gen"];
  const heads = ["Release", "Built on", "Now", "Became", "Made", ...domains.map((domain) => `${domain}: kept`)];
  const rows = list.flatMap((each) => [h("tr", { title: each.problems.join("; ") || null },
    h("td", {}, id(each.release)), h("td", {}, each.parent ? id(each.parent) : "–"),
    h("td", {}, each.roles.length ? each.roles.map((role) => chip(role, { active: "good", revoked: "bad", shadow: "info" }[role] ?? "")) : "–"),
    h("td", {}, chip(BECAME[each.outcome] ?? each.outcome, KINDS[each.outcome] ?? "")), h("td", {}, each.made_at ? day(each.made_at) : "–"),
    domains.map((domain) => h("td", {}, learnt(each.domains[domain])))),
  each.forgetting.length ? h("tr", { class: "matrix" }, h("td", { colspan: heads.length }, forgetting(each, open.has(each.release)))) : null]);
  return [h("table", {}, h("caption", { class: "sr" }, "Releases with lineage, and how much of what was learnt before each update each one still knew after it"), h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col" }, text)))), h("tbody", {}, rows))];
}

// What the release still knew of each earlier update, before and after its own training; drawn when it is opened.
function forgetting(release, isOpen) {
  const title = `What ${short(release.release)} kept of each earlier update`;
  const details = h("details", { "data-release": release.release, open: isOpen }, h("summary", {}, title), isOpen ? matrix(release, title) : null);
  details.addEventListener("toggle", () => { if (details.open && !details.querySelector("table")) details.append(matrix(release, title)); });
  return details;
}

function matrix(release, title) {
  const heads = ["Domain", "Knowledge", "Asked", "Before", "After"];
  const rows = release.forgetting.map((row) => {
    const update = row.knowledge.match(/^update ([0-9a-f]{64})$/), isKnown = row.before !== null && row.after !== null;
    const after = isKnown ? h("span", { class: `heat ${worn(row.before - row.after)}` }, percent(row.after)) : percent(row.after);
    return h("tr", {}, h("td", {}, row.domain), h("td", {}, update ? ["update ", id(update[1])] : row.knowledge), h("td", { class: "num" }, row.rows ?? "–"),
      row.untouched ? h("td", { colspan: 2, class: "num sub" }, "untouched: as parent") : [h("td", { class: "num" }, percent(row.before)), h("td", { class: "num" }, after)]);
  });
  return h("table", { "aria-label": title }, h("thead", {}, h("tr", {}, heads.map((text, at) => h("th", { scope: "col", class: at > 1 ? "num" : "" }, text)))), h("tbody", {}, rows));
}

const worn = (lost) => (lost > 0.1 ? "lost" : lost > 0.02 ? "worn" : "kept");

function learnt(domain) {
  if (!domain) return h("span", { class: "sub" }, "as parent");
  const parts = [domain.rows ? plural(domain.rows, "row") : null, domain.documents ? plural(domain.documents, "document") : null].filter(Boolean).join(", ");
  if (domain.kept_after === null || domain.kept_before === null) return h("span", { class: "heat bare" }, domain.new !== null ? `new ${percent(domain.new, 0)}` : "index", h("small", {}, parts || "no rows"));
  const lost = domain.kept_before - domain.kept_after;
  return h("span", { class: `heat ${worn(lost)}`, title: `known before ${percent(domain.kept_before)}, after ${percent(domain.kept_after)}; new facts ${percent(domain.new)}` }, percent(domain.kept_after, 0), h("small", {}, `${lost > 0 ? "−" : "+"}${Math.abs(lost * 100).toFixed(0)} pts · ${parts}`));
}

function proposedChange(change, { onChange, me, isApprover }) {
  const why = change.author === me ? "another person has to approve it" : isApprover ? null : "needs the role approver", report = change.report;
  const steps = change.patch.map((step) => `${step.op} ${step.path}${step.op === "remove" ? "" : ` = ${JSON.stringify(step.value)}`}`);
  const moves = report?.moves.map((move) => `${move.before} → ${move.after}: ${move.queries}`).join(", ");
  const says = report && [`${report.moved.toLocaleString()} of ${plural(report.queries, "recorded query").replace("querys", "queries")} would go elsewhere${moves ? ` (${moves})` : ""}`, `${report.probes_right_before} of ${plural(report.probes, "probe")} agree now, ${report.probes_right_after} then`, report.prompt_changed ? "the prompt changes" : ""].filter(Boolean).join(" · ");
  return h("div", { class: "person", "data-change": change.id },
    h("p", {}, chip(change.automatic ? "change by a program" : "change", "info"), ` ${change.author} · ${day(change.proposed_at)} · ${change.reason}`),
    h("blockquote", {}, steps.map((step) => h("div", {}, step))),
    says ? h("p", { class: "sub" }, says) : null,
    h("div", { class: "row" },
      h("button", { type: "button", class: "primary", disabled: why !== null, title: why, on: { click: () => onChange(change, "approve") } }, "Approve change…"),
      h("button", { type: "button", on: { click: () => onChange(change, "reject") } }, "Reject…")));
}

export function review(found, changes, { onApprove, onForce, ...desk }) {
  const parts = changes.filter((change) => change.stage === "open").map((change) => proposedChange(change, desk));
  if (found.approval) parts.push(h("div", { class: "person" }, h("p", {}, "Every gate has cleared for ", id(found.approval), ". An approver decides."), h("button", { type: "button", class: "primary", on: { click: () => onApprove(found.approval) } }, "Approve…")));
  if (found.forced) parts.push(h("div", { class: "person" }, h("p", {}, `${found.forced.actor} wants to promote `, id(found.forced.release), ` without the evidence, since ${clock(found.forced.at)}. Another approver has to agree.`), h("button", { type: "button", class: "danger", on: { click: () => onForce() } }, "Agree…")));
  for (const each of found.feedback.slice(0, 20)) parts.push(h("div", { class: "person" }, h("p", {}, chip(each.reason.split(":")[0].replaceAll("_", " "), "warn"), ` ${each.rater} · ${day(each.at)}`), h("blockquote", {}, each.question), each.correction ? h("blockquote", {}, each.correction) : null));
  if (found.feedback_total > 20) parts.push(h("p", { class: "sub" }, `and ${found.feedback_total - 20} more`));
  return parts.length ? [h("div", { class: "people" }, parts)] : [none("Nothing.")];
}
