// Elements and the few ways values are written.

export function el(name, given = {}, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return made;
}

export const usd = (micros) => {
  const value = Number(micros ?? 0) / 1e6;
  return value && value < 0.01 ? `$${value.toPrecision(2)}` : `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
};
export const count = (value) => Number(value ?? 0).toLocaleString("en");
export const plain = (name, prefix) => (name ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");
export const clock = (time) => (time ? new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }) : "");

export function ago(time) {
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([limit]) => seconds >= limit) ?? [1, "s"];
  return el("time", { datetime: time, title: new Date(time).toLocaleString() }, `${Math.floor(seconds / size)} ${unit} ago`);
}

const TONES = { running: "live", pending: "live", completed: "good", failed: "bad", cancelled: "quiet" };
export const pill = (word) => el("span", { class: `pill ${TONES[word] ?? "warn"}` }, word);
export const status = (session) => plain(session.status, "SESSION_STATUS_");

export const card = (title, ...children) => el("section", { class: "card" }, el("h2", {}, title), ...children);
export const nothing = (words) => el("p", { class: "quiet" }, words);

// Part of a whole: the text beside it says what the bar shows.
export const limit = (part, whole, words) => bar(part, whole, words, part > 0.9 * whole ? "bad" : part > 0.7 * whole ? "warn" : "good");

export function bar(part, whole, words, tone = "plain") {
  const full = Math.min(1, whole ? part / whole : 0);
  return el("div", { class: "bar" },
    el("svg:svg", { viewBox: "0 0 100 2", preserveAspectRatio: "none", role: "img", "aria-label": words },
      el("svg:rect", { width: 100, height: 2, class: "rail" }), el("svg:rect", { width: full * 100, height: 2, class: tone })),
    el("small", {}, words));
}

// Values from 0 to 1 in order, with the line they have to reach.
export function line(what, values, threshold, width = 320, height = 90) {
  const at = (value, index) => [8 + (index * (width - 16)) / Math.max(1, values.length - 1), height - 8 - value * (height - 16)];
  const points = values.map(at);
  const told = values.map((value) => value.toFixed(2)).join(", ");
  return el("svg:svg", { class: "line", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${what} by round: ${told}` },
    threshold !== undefined && el("svg:line", { class: "goal", x1: 8, x2: width - 8, y1: at(threshold, 0)[1], y2: at(threshold, 0)[1] }),
    el("svg:polyline", { points: points.map((point) => point.join(",")).join(" ") }),
    points.map(([x, y], index) => el("svg:circle", { cx: x, cy: y, r: 3.5 }, el("svg:title", {}, `round ${index + 1}: ${values[index].toFixed(2)}`))));
}
