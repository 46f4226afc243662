// One session: its log as it is written, or as it was at any event. What is shown is a fold of the events up to there.
import { get, send, watch } from "./api.js";
import { questions } from "./asking.js";
import { card, clock, count, el, line, nothing, pill, plain, status, usd } from "./draw.js";

export async function session(main, id, signal) {
  const events = [];
  let shown = null; // null: follow the live end
  const found = (await get(`/v1/sessions/${encodeURIComponent(id)}`)).session;
  const page = frame(found, {
    at: (place) => { shown = place; draw(); },
    act: async (verb) => {
      await send("POST", `/v1/sessions/${encodeURIComponent(id)}/${verb}`, {}).catch((error) => page.told(error.message));
    },
  });
  main.replaceChildren(page.root);
  let waiting = false;
  const draw = () => {
    waiting = false;
    page.draw(fold(found, events.slice(0, shown ?? events.length)), events, shown);
  };
  for await (const event of watch(id, signal)) {
    events.push(event);
    if (!waiting) waiting = requestAnimationFrame(draw);
  }
}

// The state after these events: pure, so that going back in time is showing fewer of them.
export function fold(first, events) {
  const state = { session: first, turns: new Map(), measures: new Map(), verdicts: [], inputs: new Map() };
  const turn = (key) => state.turns.get(key) ?? state.turns.set(key, { text: "", agent: "", notes: [] }).get(key);
  for (const event of events) {
    if (goesOn(event)) state.session = { ...state.session, status: "SESSION_STATUS_RUNNING" };
    if (event.session_started) {
      state.session = event.session_started.session;
    } else if (event.turn_started) {
      Object.assign(turn(event.turn_started.turn_id), { ...event.turn_started, text: "", live: true, time: event.time });
    } else if (event.tokens_produced) {
      turn(event.tokens_produced.turn_id).text += event.tokens_produced.text;
    } else if (event.turn_finished) {
      const ended = event.turn_finished.turn;
      Object.assign(turn(ended.id), { ...ended, text: ended.content, live: false, time: ended.start_time });
    } else if (event.turn_interrupted) {
      turn(event.turn_interrupted.turn_id).notes.push(`try ${event.turn_interrupted.attempt} broke off`);
    } else if (event.failed_over) {
      turn(event.failed_over.turn_id).notes.push(`${event.failed_over.from_model} failed, ${event.failed_over.to_model} goes on`);
      if (event.failed_over.restarted) turn(event.failed_over.turn_id).text = "";
    } else if (event.tool_started) {
      turn(event.tool_started.turn_id).notes.push(`calls ${event.tool_started.tool}`);
    } else if (event.input_requested) {
      const { input, question } = event.input_requested;
      turn(input.turn_id).notes.push(`asks: ${question}`);
      state.inputs.set(input.id, input);
    } else if (event.input_given) {
      state.inputs.delete(event.input_given.input_id);
    } else if (event.monitor_verdict) {
      const { rule, action, severity, bundle } = event.monitor_verdict;
      turn(event.monitor_verdict.turn_id).notes.push(`${rule} of ${bundle}: ${action} (${severity})`);
      state.verdicts.push(event.monitor_verdict);
    } else if (event.round_finished) {
      for (const { measure, score, threshold } of event.round_finished.scores ?? []) {
        const known = state.measures.get(measure) ?? state.measures.set(measure, { scores: [], threshold }).get(measure);
        known.scores.push(score ?? 0);
      }
    } else if (event.session_waiting) {
      state.session = { ...state.session, status: event.session_waiting.status };
    } else if (event.session_finished) {
      state.session = event.session_finished.session;
      state.inputs.clear();
    }
  }
  if (events.length && status(state.session) === "pending") state.session = { ...state.session, status: "SESSION_STATUS_RUNNING" };
  return state;
}

// What ends a waiting: who advances or resumes it, an answer, a turn.
const goesOn = (event) => event.turn_started || event.input_given || ["advance", "resume"].includes(event.signal_received?.signal);

function frame(first, { at, act }) {
  const [title, facts, talk, alike, log, words] = ["h1", "dl", "div", "div", "ol", "p"].map((name) => el(name));
  facts.className = "figures";
  log.className = "log";
  const place = el("input", { type: "range", min: 1, max: 1, value: 1, "aria-label": "Go to an event", oninput: () => at(Number(place.value)) });
  const live = el("button", { class: "other", onclick: () => at(null) }, "Live");
  const label = el("small", { class: "quiet" });
  const buttons = ["advance", "pause", "resume", "cancel"].map((verb) => el("button", { class: "other", "data-verb": verb, onclick: () => act(verb) }, verb));
  const asked = questions();
  const root = el("div", { class: "session" },
    el("div", { class: "top" }, el("div", {}, el("a", { href: "#/" }, "← overview"), title), el("div", { class: "acts" }, buttons)),
    words,
    asked.root,
    el("div", { class: "replay card" }, place, live, label),
    el("div", { class: "columns" },
      el("div", {}, talk),
      el("aside", {}, card("Figures", facts), card("How close it is to its end", alike), card("Log", log))));
  const told = (message) => { words.textContent = message; words.className = "told"; };

  function draw(state, events, shown) {
    const now = status(state.session);
    title.replaceChildren(state.session.topic_start || first.id, " ", pill(now));
    const ended = ["completed", "failed", "cancelled"].includes(now) || shown !== null;
    const fits = { advance: now === "waiting" && state.session.manual_advance, pause: now !== "paused", resume: now === "paused", cancel: true };
    for (const button of buttons) button.hidden = ended || !fits[button.dataset.verb];
    asked.show(shown === null ? state.inputs : new Map());
    const turns = [...state.turns.values()];
    const tokens = turns.reduce((sum, one) => sum + Number(one.usage?.output_tokens ?? 0), 0);
    const cost = turns.reduce((sum, one) => sum + Number(one.cost?.micros_usd ?? 0), 0);
    facts.replaceChildren(...Object.entries({
      mode: state.session.mode, turns: count(turns.length), "output tokens": count(tokens), cost: usd(cost),
      verdicts: count(state.verdicts.length), stopped: plain(state.session.stop_reason, "STOP_REASON_").replace("unspecified", "") || "–",
    }).map(([word, value]) => el("div", {}, el("dt", {}, word), el("dd", {}, value))));
    talk.replaceChildren(...(turns.length ? turns.map(said) : [nothing("Nobody has spoken yet.")]));
    const told = [...state.measures].filter(([, { scores }]) => scores.length > 1);
    alike.replaceChildren(...(told.length
      ? told.flatMap(([measure, { scores, threshold }]) => [el("h3", {}, measure), line(measure, scores, threshold)])
      : [nothing("It takes two rounds to tell.")]));
    log.replaceChildren(...events.slice(0, shown ?? events.length).filter((event) => !event.tokens_produced).slice(-40).reverse().map(entry));
    place.max = events.length;
    place.value = shown ?? events.length;
    live.disabled = shown === null;
    const whole = now === "running" ? "live" : "the whole log";
    label.textContent = shown === null ? `${whole} · ${events.length} events` : `as it was after event ${shown} of ${events.length}`;
  }
  return { root, draw, told };
}

function said(turn) {
  return el("article", { class: `turn${turn.live ? " live" : ""}` },
    el("h3", {}, turn.agent || "…", el("small", {}, ` round ${turn.round ?? 1}${turn.phase ? ` · ${turn.phase}` : ""} · ${clock(turn.time)}`)),
    el("div", { class: "text" }, turn.text, turn.live && el("span", { class: "caret" })),
    turn.notes.map((note) => el("p", { class: "note" }, note)),
    turn.failure && el("p", { class: "told" }, turn.failure.message));
}

function entry(event) {
  const kind = Object.keys(event).find((key) => event[key] && typeof event[key] === "object") ?? "";
  return el("li", {}, el("code", {}, event.sequence), ` ${kind.replaceAll("_", " ")}`, el("small", {}, ` ${event.actor.replace(/^agent:|@.*$/g, "")} · ${clock(event.time)}`));
}
