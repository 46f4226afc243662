// Which page is shown: by what stands behind the # of the address.
import { get, send } from "./api.js";
import { el, nothing, plain } from "./draw.js";
import { overview } from "./overview.js";
import { session } from "./session.js";

const main = document.getElementById("main");
let leaving = new AbortController();

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const named = location.hash.match(/^#\/sessions\/(.+)$/);
  try {
    if (named) return await session(main, decodeURIComponent(named[1]), signal);
    while (!signal.aborted) {
      await overview(main);
      await new Promise((done) => setTimeout(done, 5000));
    }
  } catch (error) {
    if (!signal.aborted) main.replaceChildren(nothing(error.message));
  }
}

async function health() {
  const answer = await fetch("/health");
  const said = await answer.json();
  const parts = said.parts ?? said.details?.[0]?.metadata?.dependency?.split(",").map((name) => ({ name, state: "down" })) ?? [];
  document.getElementById("health").replaceChildren(...parts.map((part) => {
    const good = part.state === "HEALTH_STATE_SERVING";
    return el("span", { class: `dot ${good ? "good" : "bad"}`, title: `${part.name}: ${good ? "serving" : "does not answer"}` }, part.name);
  }));
}

async function begin() {
  const { principal } = await get("/v1/caller");
  document.getElementById("caller").replaceChildren(principal.subject, el("small", {}, ` ${principal.tenant_id} · ${(principal.roles ?? []).map((role) => plain(role, "")).join(", ")}`));
  document.getElementById("out").addEventListener("click", async () => {
    await send("DELETE", "/v1/dashboard/session");
    location.assign("/dashboard/sign-in");
  });
  addEventListener("hashchange", show);
  health();
  setInterval(health, 10000);
  await show();
}

begin().catch((error) => main.replaceChildren(nothing(error.message)));
