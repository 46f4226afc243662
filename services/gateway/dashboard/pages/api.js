// How the pages ask: the same REST as everyone, with the browser's cookie. Whoever is not signed in is taken to the sign-in.

export class Refused extends Error {
  constructor(status, said) {
    super(said.message || `the mesh answers ${status}`);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { "x-agentnet-page": "1", ...options.headers };
  const answer = await fetch(path, { ...options, headers, credentials: "same-origin" });
  if (answer.status === 401) location.assign("/dashboard/sign-in");
  if (!answer.ok) throw new Refused(answer.status, await answer.json().catch(() => ({})));
  return answer;
}

export const get = async (path, query = {}) => {
  const said = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
  return (await ask(said ? `${path}?${said}` : path)).json();
};

export const send = async (method, path, body) => {
  const json = body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return (await ask(path, { method, ...json })).json();
};

// Events of a session's log, each once and in order: a stream that breaks goes on after the last one seen.
export async function* watch(session, signal) {
  let after = 0;
  for (let wait = 250; !signal.aborted; wait = Math.min(wait * 2, 8000)) {
    try {
      const answer = await ask(`/v1/sessions/${encodeURIComponent(session)}/events?after_sequence=${after}`, { signal });
      for await (const item of messages(answer.body)) {
        wait = 250;
        if (!item.event) continue;
        after = Number(item.event.sequence);
        yield item.event;
        if (item.event.session_finished) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) throw error;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* messages(body) {
  let rest = "";
  for await (const part of texts(body.pipeThrough(new TextDecoderStream()))) {
    const blocks = (rest + part).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
  }
}

async function* texts(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
