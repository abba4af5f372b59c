// The server, asked with the secret that the page's link has behind its #.

const KEY = "ebpf-lb-token";
const RETRY_MS = 1000;

const token = (() => {
  const given = location.hash.slice(1);
  if (given) {
    sessionStorage.setItem(KEY, given); // so that the page can be loaded again
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
})();

const ask = (path, options = {}) =>
  fetch(`/api/${path}`, { ...options, headers: { Authorization: `Bearer ${token}` } });

/** What an action answers; an Error with the server's sentence where it refuses. */
export async function post(action, body) {
  const response = await ask(action, { method: "POST", body: JSON.stringify(body) });
  if (response.ok) return response.json();
  const text = await response.text();
  throw new Error(text.startsWith("{") ? JSON.parse(text).error : text);
}

/** Calls `put` with every scene, for ever, and `state` with what is the matter meanwhile ("" if
 * nothing is). EventSource cannot send the secret, so the events are read by hand. */
export async function follow(put, state) {
  for (;;) {
    try {
      const response = await ask("scenes");
      if (!response.ok) throw new Error(await response.text());
      state("");
      await readEvents(response.body, (data) => put(JSON.parse(data)));
      state("the lab is gone, or the page's server has ended");
    } catch (error) {
      state(error instanceof TypeError ? "the page's server does not answer" : error.message);
    }
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

async function readEvents(body, put) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: ")) put(event.slice(6));
  }
}
