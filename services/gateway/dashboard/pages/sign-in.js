// Signing in: with a key or token, or by way of an issuer (authorization code with PKCE).
const told = document.getElementById("told");
const credential = document.getElementById("credential");
const here = `${location.origin}/dashboard/sign-in`;
const KEPT = "agentnet.sign-in";

const text = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => text(crypto.getRandomValues(new Uint8Array(48)));

async function signIn(path, headers, body) {
  told.textContent = "";
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-agentnet-page": "1", ...headers },
    body: JSON.stringify(body),
  });
  if (answer.ok) return location.replace("/dashboard");
  const said = await answer.json().catch(() => ({}));
  told.textContent = said.message || `The mesh answers ${answer.status}.`;
}

async function leaveFor(issuer) {
  const kept = { state: random(), verifier: random(), issuer: issuer.issuer };
  sessionStorage.setItem(KEPT, JSON.stringify(kept));
  const challenge = text(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(kept.verifier)));
  const asked = new URL(issuer.authorization_endpoint);
  const said = {
    response_type: "code", client_id: issuer.client_id, redirect_uri: here, scope: issuer.scope, audience: issuer.audience,
    state: kept.state, code_challenge: challenge, code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(said)) asked.searchParams.set(name, value);
  location.assign(asked);
}

// Back from an issuer: only with the state this very tab left with, and from whom it left for.
async function comeBack(said) {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) || "{}");
  sessionStorage.removeItem(KEPT);
  history.replaceState(null, "", here);
  if (said.has("error")) {
    told.textContent = said.get("error_description") || said.get("error");
  } else if (!kept.state || said.get("state") !== kept.state || (said.get("iss") ?? kept.issuer) !== kept.issuer) {
    told.textContent = "This answer is not to a question of this page. Sign in again.";
  } else {
    const code = { issuer: kept.issuer, code: said.get("code"), code_verifier: kept.verifier, redirect_uri: here };
    await signIn("/v1/dashboard/session/code", {}, code);
  }
}

async function offerIssuers() {
  const answer = await fetch("/v1/dashboard/issuers");
  if (!answer.ok || !globalThis.crypto?.subtle) return;
  for (const issuer of (await answer.json()).issuers ?? []) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "other";
    button.textContent = `Continue with ${new URL(issuer.issuer).host}`;
    button.addEventListener("click", () => leaveFor(issuer));
    document.getElementById("issuers").append(button);
  }
}

document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn("/v1/dashboard/session", { authorization: `Bearer ${credential.value.trim()}` }, {});
});
// A link of `make run` brings a token behind the #, which no server is sent. It is only filled in: a person signs in.
if (location.hash.length > 1) {
  credential.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", here);
}
const said = new URLSearchParams(location.search);
if (said.has("state")) comeBack(said);
offerIssuers();
