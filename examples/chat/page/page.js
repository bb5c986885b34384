// Asks, and shows the answer as it comes. Which answer is on show is in the URL's fragment, so that a
// reload, or the same address in another tab of this browser, shows it again from its first token. The
// secret travels in a cookie that no script sees.
"use strict";

const RETRY_MS = 2000;
const byId = (id) => document.getElementById(id);
const [prompt, answer, state] = ["prompt", "answer", "state"].map(byId);
const [form, question] = ["ask", "question"].map(byId);

let source = null;
let retry = null;

function say(name, text) {
  state.dataset.state = name;
  state.textContent = text;
}

// A model whose tokens bring no blanks of their own means words.
function append(token) {
  const apart = answer.textContent !== "" && !/^\s/.test(token);
  answer.append(apart ? " " + token : token);
}

function close() {
  if (source) source.close();
  clearTimeout(retry);
  source = null;
}

function read(event) {
  const chunk = JSON.parse(event.data);
  if (chunk.token !== "") append(chunk.token);
  if (chunk.error) say("failed", chunk.error);
  else if (chunk.done) say("done", "Done.");
  else say("streaming", "Answering…");
  if (chunk.done) close();
}

// EventSource does not tell why it gave up: asks again, to know.
async function diagnose(id) {
  let status = 0;
  const looking = new AbortController();
  try {
    const response = await fetch("/stream/" + id, { signal: looking.signal });
    status = response.status;
  } catch {
    // Nobody answers: the same as an API without its broker.
  }
  looking.abort();
  if (location.hash !== "#" + id) return;
  if (status === 404) {
    say("failed", "This answer is not to be read here: it is unknown, or another browser asked for it.");
  } else {
    say("waiting", "The connection is lost. Trying again…");
    retry = setTimeout(() => show(id), RETRY_MS);
  }
}

function show(id) {
  close();
  prompt.textContent = sessionStorage.getItem(id) ?? "";
  answer.textContent = "";
  say("waiting", "Waiting for the model…");
  const opened = new EventSource("/stream/" + id);
  source = opened;
  opened.onmessage = read;
  opened.addEventListener("gap", () => append("[… some of the answer is lost …]"));
  opened.onerror = () => {
    if (source !== opened) return;
    // Otherwise it comes back by itself, after the last token that it had.
    if (opened.readyState === EventSource.CLOSED) {
      close();
      diagnose(id);
    } else {
      say("waiting", "The connection is lost. Trying again…");
    }
  };
}

function showFragment() {
  const id = location.hash.slice(1);
  if (/^[0-9a-f-]{36}$/.test(id)) show(id);
}

async function ask() {
  const text = question.value;
  if (text.trim() === "") return;
  close();
  prompt.textContent = text;
  answer.textContent = "";
  say("waiting", "Sending…");
  try {
    const response = await fetch("/v1/chat", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: text }),
    });
    const body = await response.json();
    if (!response.ok) throw new Error(body.error);
    sessionStorage.setItem(body.request_id, text);
    question.value = "";
    // Shows it.
    location.hash = body.request_id;
  } catch (error) {
    say("failed", "Your prompt was not taken: " + error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    ask();
  }
});
addEventListener("hashchange", showFragment);
showFragment();
