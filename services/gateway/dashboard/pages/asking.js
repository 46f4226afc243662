// What people are asked, and their answers.
import { get, send } from "./api.js";
import { ago, card, el } from "./draw.js";

const approval = (asked) => asked.kind === "INPUT_KIND_APPROVAL";

// One question with its buttons. Where rules of policy hold something the mesh decides who may answer; a refusal is told here.
function question(asked) {
  const words = el("input", { name: "answer", "aria-label": "Your answer", autocomplete: "off", required: !approval(asked) });
  const told = el("p", { class: "told", hidden: true });
  const give = async (approved) => {
    const path = `/v1/sessions/${encodeURIComponent(asked.session_id)}/inputs/${encodeURIComponent(asked.id)}`;
    for (const button of buttons) button.disabled = true;
    try {
      await send("POST", path, { answer: words.value, approved });
      form.replaceChildren(el("p", { class: "quiet" }, "Answered."));
    } catch (error) {
      for (const button of buttons) button.disabled = false;
      told.textContent = error.message;
      told.hidden = false;
    }
  };
  const button = (approved, word, kind) => el("button", { type: "submit", class: kind, "data-approved": String(approved) }, word);
  const buttons = approval(asked) ? [button(true, "Approve"), button(false, "Refuse", "other")] : [button(false, "Answer")];
  const form = el("form", { class: "ask", "data-input": asked.id },
    el("p", {}, asked.question),
    el("p", { class: "quiet" }, `${asked.agent || "the graph"} · `, ago(asked.request_time)),
    el("div", { class: "acts" }, words, buttons), told);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    give(event.submitter?.dataset.approved === "true");
  });
  return form;
}

// A card that keeps what is typed while questions come and go.
export function questions() {
  const forms = new Map();
  const list = el("div");
  const root = card("Waits for you", list);
  return {
    root,
    show(wanted) {
      for (const id of forms.keys()) if (!wanted.has(id)) forms.get(id).remove(), forms.delete(id);
      for (const [id, asked] of wanted) if (!forms.has(id)) forms.set(id, question(asked)), list.append(forms.get(id));
      root.hidden = !forms.size;
    },
  };
}

// Everything the tenant's sessions ask, oldest first.
export async function inbox() {
  const { inputs } = await get("/v1/inputs", { page_size: 30 });
  const shown = inputs ?? [];
  if (!shown.length) return null;
  return el("div", {}, shown.map((asked) => el("div", {},
    el("a", { href: `#/sessions/${encodeURIComponent(asked.session_id)}` }, "its session"), question(asked))));
}
