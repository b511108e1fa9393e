// Talking to the server, and the session that belongs to this tab.

const KEY = "xpnet-session";

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body, type = "application/json") {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: body === undefined ? undefined : type === "application/json" ? JSON.stringify(body) : body,
      headers: body === undefined ? {} : { "Content-Type": type },
    });
  } catch {
    throw new Refusal(0, "xpnet does not answer. Is it still running in its terminal?");
  }
  const found = await answer.json().catch(() => ({ error: `unexpected answer (${answer.status})` }));
  if (!answer.ok) throw new Refusal(answer.status, found.error);
  return found;
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
export const send = (path, bytes, type) => ask("POST", path, bytes, type);

// A duplicated tab brings a copy of the first one's storage. The lock tells them apart: it belongs to one tab
// until that is closed or reloaded, so a tab that does not get it takes a copy of the session instead.
function mine(id) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(), 400); // a reloaded page lets go a moment later
    navigator.locks
      .request(`xpnet-${id}`, { signal: patience.signal }, () => {
        clearTimeout(timer);
        resolve(true);
        return new Promise(() => {}); // for as long as the tab lives
      })
      .catch(() => resolve(false));
  });
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export async function begin(like) {
  const state = await post("/api/sessions", like ? { like } : {});
  try {
    sessionStorage.setItem(KEY, state.id);
  } catch {
    // without storage a reload begins anew
  }
  await mine(state.id);
  return state;
}

export async function resume() {
  const id = stored();
  if (!id) return begin();
  if (!(await mine(id))) return begin(id);
  try {
    return await get(`/api/sessions/${encodeURIComponent(id)}`);
  } catch (error) {
    if (error.status === 404) return begin();
    throw error;
  }
}
