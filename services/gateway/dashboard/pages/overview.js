// The overview: what runs, what it costs, what policy caught.
import { get } from "./api.js";
import { inbox } from "./asking.js";
import { ago, bar, card, count, el, limit, line, nothing, pill, plain, status, usd } from "./draw.js";

const HOUR = 3600e3;
const since = (change) => {
  const time = new Date();
  change(time);
  return time.toISOString();
};

// What a role may not read leaves a sentence, not a hole.
async function part(asked, draw) {
  try {
    return draw(await asked);
  } catch (error) {
    return nothing(error.status === 403 ? "Your role may not read this." : error.message);
  }
}

export async function overview(main) {
  const today = since((time) => time.setHours(0, 0, 0, 0));
  const month = since((time) => (time.setDate(1), time.setHours(0, 0, 0, 0)));
  const [asked, spend, budgets, sessions, violations, agents] = await Promise.all([
    part(inbox(), (found) => found),
    part(Promise.all([get("/v1/cost/summary", { start_time: today }), get("/v1/cost/summary", { start_time: month })]), spent),
    part(get("/v1/budgets"), limits),
    part(get("/v1/sessions", { page_size: 30 }), table),
    part(get("/v1/violations", { page_size: 12, start_time: new Date(Date.now() - 7 * 24 * HOUR).toISOString() }), caught),
    part(get("/v1/cost/summary", { start_time: month, group_by: "agent", page_size: 6 }), dearest),
  ]);
  main.replaceChildren(...[
    asked && card("Waits for people", asked),
    el("div", { class: "tiles" }, card("Spend", spend), card("Budgets", budgets), card("By agent, this month", agents)),
    card("Sessions", sessions),
    card("Violations, 7 days", violations),
  ].filter(Boolean));
}

function spent([today, month]) {
  const [day, whole] = [today, month].map((found) => found.summaries?.[0] ?? {});
  const tokens = Number(whole.input_tokens ?? 0) + Number(whole.output_tokens ?? 0);
  return el("dl", { class: "figures" },
    el("div", {}, el("dt", {}, "today"), el("dd", {}, usd(day.micros_usd))),
    el("div", {}, el("dt", {}, "this month"), el("dd", {}, usd(whole.micros_usd))),
    el("div", {}, el("dt", {}, "calls"), el("dd", {}, count(whole.generations))),
    el("div", {}, el("dt", {}, "tokens"), el("dd", {}, count(tokens))));
}

function limits({ budgets }) {
  if (!budgets?.length) return nothing("None is set: spending is not limited.");
  return el("div", {}, budgets.slice(0, 6).map((budget) => {
    const whose = [plain(budget.level, "BUDGET_LEVEL_"), budget.name, plain(budget.window, "BUDGET_WINDOW_")].filter(Boolean).join(" · ");
    const used = Number(budget.settled_micros_usd) + Number(budget.leased_micros_usd);
    return limit(used, Number(budget.limit_micros_usd), `${whose}: ${usd(used)} of ${usd(budget.limit_micros_usd)}`);
  }));
}

function dearest({ summaries }) {
  const named = (summaries ?? []).filter((one) => one.group?.agent);
  if (!named.length) return nothing("Nothing was spent yet.");
  const most = Math.max(...named.map((one) => Number(one.micros_usd)), 1);
  return el("div", {}, named.map((one) => bar(Number(one.micros_usd), most, `${one.group.agent}: ${usd(one.micros_usd)}`)));
}

function table({ sessions }) {
  if (!sessions?.length) return nothing("No session yet. Start one: agentnet run \"Should tests come first?\" --agents Athena,Apollo");
  const running = sessions.filter((session) => status(session) === "running").length;
  const rows = sessions.map((session) => el("tr", {},
    el("td", {}, pill(status(session))),
    el("td", {}, el("a", { href: `#/sessions/${encodeURIComponent(session.id)}` }, session.topic_start || session.id)),
    el("td", {}, session.mode),
    el("td", {}, (session.agents ?? []).map((agent) => agent.split("@")[0]).join(", ")),
    el("td", { class: "number" }, `${session.rounds_executed ?? 0}/${session.max_rounds ?? 0}`),
    el("td", { class: "spark" }, (session.round_similarities ?? []).length > 1 && line("similarity", session.round_similarities, undefined, 90, 26)),
    el("td", { class: "number" }, usd(session.cost_micros_usd)),
    el("td", {}, ago(session.start_time))));
  const head = ["state", "topic", "mode", "agents", "rounds", "alike", "cost", "started"].map((word) => el("th", { class: ["rounds", "cost"].includes(word) ? "number" : undefined }, word));
  return el("div", { class: "wide" },
    el("p", { class: "quiet" }, `${running} running, ${sessions.length} of late`),
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

function caught({ violations }) {
  if (!violations?.length) return nothing("None.");
  const rows = violations.map((one) => el("tr", {},
    el("td", {}, el("span", { class: `pill ${one.severity?.endsWith("MINOR") ? "warn" : "bad"}` }, plain(one.severity, "SEVERITY_"))),
    el("td", {}, one.monitor_name),
    el("td", {}, one.rationale),
    el("td", {}, one.session_id ? el("a", { href: `#/sessions/${encodeURIComponent(one.session_id)}` }, one.agent || "session") : ""),
    el("td", {}, ago(one.create_time))));
  return el("div", { class: "wide" }, el("table", {}, el("tbody", {}, rows)));
}
