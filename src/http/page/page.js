
"use strict";
// What is shown may be anybody's text: it only ever becomes text, never markup.
(() => {
  const FIGURES_MS = 1000, LISTS_MS = 2000, PATIENCE_MS = 10000;
  const SAMPLES = 120, ROWS = 50, TAIL_ROWS = 200, TAIL_CHARS = 2000, TAIL_SHOW_MS = 100;
  const TOKEN = "fanfare-token";
  const $ = (id) => document.getElementById(id);

  // Numbers as people read them.
  const grouped = (n) => BigInt(n).toLocaleString("en");
  function rate(n) {
    for (const [unit, size] of [["M", 1e6], ["k", 1e4]]) {
      if (n >= size) return (n / (unit === "M" ? 1e6 : 1e3)).toFixed(1) + unit;
    }
    return n >= 100 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toFixed(1);
  }
  function bytes(n) {
    for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
      if (n >= size) return (n / size).toFixed(n < 10 * size ? 1 : 0) + " " + unit;
    }
    return Math.round(n) + " B";
  }
  function age(s) {
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (s >= size) return Math.floor(s / size) + " " + unit;
    }
    return Math.floor(s) + " s";
  }
  // Characters that turn the direction of others would let one name pass for another.
  const visible = (value) =>
    value.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const count = (n, what) => `${grouped(n)} ${what}${n === 1 ? "" : "s"}`;
  function text(element, value) {
    const seen = visible(value);
    if (element.textContent !== seen) element.textContent = seen;
  }
  function element(name, className, value) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (value !== undefined) text(made, value);
    return made;
  }

  // Asking the broker.
  let token = sessionStorage.getItem(TOKEN) || "";
  class Refused extends Error {
    constructor(status, message, retryAfter) {
      super(message);
      this.status = status;
      this.retryAfter = retryAfter;
    }
  }
  async function ask(path, options = {}) {
    const headers = new Headers(options.headers);
    if (token) headers.set("authorization", "Bearer " + token);
    const response = await fetch(path, { cache: "no-store", ...options, headers });
    if (response.ok) return response;
    const body = await response.text();
    let message = body.trim() || "the broker answers with status " + response.status;
    try {
      message = JSON.parse(body).error.message;
    } catch {
      // It is plain text.
    }
    throw new Refused(response.status, message, Number(response.headers.get("retry-after")) || 0);
  }
  async function figures(path) {
    const response = await ask(path, { signal: AbortSignal.timeout(PATIENCE_MS) });
    return response.json();
  }

  // Who is asking.
  function wantToken(reason) {
    $("main").hidden = true;
    $("forget").hidden = true;
    $("access").hidden = false;
    text($("access-reason"), reason);
    show("token wanted", "");
    if (!$("access").contains(document.activeElement)) $("token").focus();
  }
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    sessionStorage.setItem(TOKEN, token);
    $("token").value = "";
    $("access").hidden = true;
    $("main").hidden = false;
    lookNow();
  });
  $("forget").addEventListener("click", () => {
    sessionStorage.removeItem(TOKEN);
    token = "";
    stopTail("stopped");
    lookNow();
  });
  function show(status, kind) {
    $("status").className = "status " + kind;
    text($("status"), status);
    $("main").classList.toggle("stale", kind === "lost");
  }

  // Figures.
  let last = null;
  const lines = { in: [], out: [] };
  function drawLine(name, value) {
    const samples = lines[name];
    samples.push(value);
    if (samples.length > SAMPLES) samples.shift();
    const top = Math.max(1, ...samples);
    const from = SAMPLES - samples.length;
    const points = samples.map((sample, at) => `${from + at + 1},${(29 - (sample / top) * 28).toFixed(1)}`);
    $(name + "-line").firstElementChild.setAttribute("points", points.join(" "));
  }
  function showStats(stats) {
    text($("version"), stats.version);
    text($("uptime"), "up " + age(stats.uptime_s) + (stats.ready ? "" : ", stopping"));
    const missed = Object.values(stats.missed_messages).reduce((sum, n) => sum + n, 0);
    const elapsed = last ? stats.uptime_s - last.stats.uptime_s : 0;
    // A restart begins anew.
    if (elapsed > 0) {
      const per = (now, before) => Math.max(0, now - before) / elapsed;
      const before = last.stats;
      const into = per(stats.published.messages, before.published.messages);
      const out = per(stats.delivered.messages, before.delivered.messages);
      text($("in"), rate(into));
      text($("out"), rate(out));
      text($("in-bytes"), bytes(per(stats.published.bytes, before.published.bytes)));
      text($("out-bytes"), bytes(per(stats.delivered.bytes, before.delivered.bytes)));
      drawLine("in", into);
      drawLine("out", out);
      const missing = per(missed, last.missed);
      $("missed-value").classList.toggle("bad", missing > 0);
      const reasons = Object.entries(stats.missed_messages).filter(([, count]) => count > 0);
      const named = reasons.map(([reason, count]) => `${reason.replaceAll("_", " ")} ${grouped(count)}`);
      text($("missed-note"), missing > 0 ? rate(missing) + "/s · " + named.join(", ") : named.join(", ") || "none");
    } else {
      lines.in.length = lines.out.length = 0;
    }
    text($("unmatched"), grouped(stats.unmatched_messages));
    text($("waiting"), grouped(stats.waiting.messages));
    text($("missed"), grouped(missed));
    text($("subscribers-count"), grouped(stats.subscriptions));
    text($("subscribers-note"), `${count(stats.groups, "group")} · ${count(stats.connections, "connection")}`);
    text($("topics-count"), grouped(stats.topics));
    const kept = stats.history.messages;
    text($("topics-note"), kept ? `${count(kept, "message")} kept, ${bytes(stats.history.bytes)}` : "in use or remembered");
    const { used_bytes: used, budget_bytes: budget } = stats.memory;
    const percent = Math.min(100, (100 * used) / budget);
    text($("memory"), bytes(used));
    const resident = stats.process.resident_bytes;
    text($("memory-note"), `of ${bytes(budget)}` + (resident ? ` · ${bytes(resident)} resident` : ""));
    const meter = $("memory-meter");
    meter.setAttribute("aria-valuenow", percent.toFixed(0));
    meter.setAttribute("aria-valuetext", `${bytes(used)} of ${bytes(budget)}`);
    meter.className = "meter" + (percent >= 95 ? " bad" : percent >= 80 ? " warn" : "");
    meter.firstElementChild.style.width = percent + "%";
    last = { stats, missed };
  }

  // Tables. Rows are kept by key, so that whoever has one in focus keeps it, and stay in their places while
  // somebody points at one.
  function table(id, columns, keyOf) {
    const body = $(id).tBodies[0];
    const rows = new Map();
    return (list) => {
      const held = body.matches(":hover, :focus-within");
      const seen = new Map(list.map((item) => [keyOf(item), item]));
      for (const [key, row] of rows) {
        const item = seen.get(key);
        row.classList.toggle("gone", !item);
        if (!item && !held) {
          row.remove();
          rows.delete(key);
        }
      }
      let at = 0;
      for (const [key, item] of seen) {
        let row = rows.get(key);
        if (!row) {
          if (held && rows.size >= ROWS) continue;
          row = element("tr");
          for (const column of columns) row.append(column.make());
          rows.set(key, row);
          if (held) body.append(row);
        }
        columns.forEach((column, index) => column.fill(row.cells[index], item));
        if (!held && body.rows[at] !== row) body.insertBefore(row, body.rows[at] || null);
        at += 1;
      }
    };
  }
  function column(className, value, warn = () => "") {
    return {
      make: () => element("td", className),
      fill: (cell, item) => {
        text(cell, value(item));
        cell.className = `${className} ${warn(item)}`.trim();
      },
    };
  }
  function name(className, value) {
    return {
      make: () => {
        const cell = element("td", className);
        cell.append(element("div", "name"));
        return cell;
      },
      fill: (cell, item) => text(cell.firstElementChild, value(item)),
    };
  }
  const tailButton = {
    make: () => {
      const cell = element("td", "number");
      const button = element("button", "", "Tail");
      button.type = "button";
      button.addEventListener("click", () => {
        $("tail").scrollIntoView({ block: "nearest" });
        startTail(button.dataset.topic);
      });
      cell.append(button);
      return cell;
    },
    fill: (cell, item) => {
      const button = cell.firstElementChild;
      if (button.dataset.topic === item.topic) return;
      button.dataset.topic = item.topic;
      button.setAttribute("aria-label", "Tail " + visible(item.topic));
    },
  };
  const showTopics = table("topics-table", [
    name("", (row) => row.topic),
    column("number", (row) => rate(row.per_second)),
    column("number spare", (row) => grouped(row.subscribers)),
    column("number spare", (row) => grouped(row.sequence)),
    column("number spare", (row) => grouped(row.kept)),
    tailButton,
  ], (row) => row.topic);
  const showSubscribers = table("subscribers-table", [
    name("", (row) => row.filters.join(", ") + (row.tags.length ? ` [${row.tags.join(", ")}]` : "")),
    column("number", (row) => `${grouped(row.waiting)} of ${grouped(row.mailbox_capacity)}`, (row) => {
      const part = row.waiting / row.mailbox_capacity;
      return part >= 0.9 ? "bad" : part >= 0.5 ? "warn" : "";
    }),
    column("number", (row) => grouped(row.missed), (row) => (row.missed > 0 ? "warn" : "")),
    column("number spare", (row) => grouped(row.delivered)),
    column("spare", (row) => row.overflow.replaceAll("_", " ")),
    name("spare", (row) => row.group ?? ""),
    column("spare", (row) => row.peer ?? ""),
    column("number spare", (row) => (row.age_s === null ? "" : age(row.age_s))),
  ], (row) => row.id);
  function shown(id, list, rows, what) {
    const found = list.found === list.total ? "" : ` found among ${grouped(list.total)}`;
    const all = rows === list.found ? count(rows, what) : `${rows} of ${count(list.found, what)}`;
    text($(id), list.total === 0 ? `no ${what}s` : all + found);
  }

  // Looking again and again, while somebody looks.
  let listsAt = -Infinity, timer = 0, looking = false, again = false;
  async function look() {
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    clearTimeout(timer);
    let wait = FIGURES_MS;
    try {
      if (!document.hidden) {
        showStats(await figures("v1/stats"));
        if (performance.now() - listsAt >= LISTS_MS) {
          listsAt = performance.now();
          const search = (id) => "search=" + encodeURIComponent($(id).value.trim()) + "&limit=" + ROWS;
          const [topics, subscribers] = await Promise.all([
            figures(`v1/topics?sort=${$("topics-sort").value}&${search("topics-search")}`),
            figures(`v1/subscribers?${search("subscribers-search")}`),
          ]);
          showTopics(topics.topics);
          shown("topics-shown", topics, topics.topics.length, "topic");
          showSubscribers(subscribers.subscribers);
          shown("subscribers-shown", subscribers, subscribers.subscribers.length, "subscriber");
        }
        show("live", "live");
        $("forget").hidden = !token;
      }
    } catch (error) {
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        const hint = error.status === 401 && !token ? "The broker asks who you are." : error.message;
        wantToken(hint);
        wait = 0;
      } else if (error instanceof Refused) {
        show(error.message, "lost");
        wait = Math.max(wait, error.retryAfter * 1000);
      } else {
        show("no answer, trying again", "lost");
      }
    }
    looking = false;
    if (again) {
      again = false;
      look();
    } else if (wait > 0) {
      timer = setTimeout(look, wait);
    }
  }
  function lookNow() {
    listsAt = -Infinity;
    look();
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && $("access").hidden) lookNow();
  });
  for (const id of ["topics-search", "topics-sort", "subscribers-search"]) {
    $(id).addEventListener("input", lookNow);
  }

  // The live tail: server-sent events, by fetch, so that the token travels in a header.
  let tail = null;
  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", event = { type: "message", data: [] };
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r\n|\n|\r/);
      rest = parts.pop();
      for (const line of parts) {
        if (line === "") {
          if (event.data.length) yield { type: event.type, data: event.data.join("\n") };
          event = { type: "message", data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const content = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event.type = content;
        if (field === "data") event.data.push(content);
      }
    }
  }
  function line(event) {
    const item = element("li");
    if (event.type !== "message") {
      item.className = "told";
      text(item, event.type + ": " + event.data.slice(0, TAIL_CHARS));
      return item;
    }
    const message = JSON.parse(event.data);
    const about = [grouped(message.sequence), (message.time || "").slice(11, 23)];
    if (message.tag) about.push("tag " + message.tag);
    if (message.key) about.push("key " + message.key);
    for (const [name, value] of Object.entries(message.attributes || {})) about.push(name + "=" + value);
    item.append(element("span", "topic", message.topic), " ", element("span", "about", about.join(" · ").slice(0, TAIL_CHARS)));
    const payload = message.payload ?? message.payload_base64 ?? "";
    const kind = message.payload === undefined && payload ? "base64: " : "";
    const cut = payload.length > TAIL_CHARS ? `… (${grouped(payload.length)} characters)` : "";
    item.append(element("span", "payload", kind + payload.slice(0, TAIL_CHARS) + cut));
    return item;
  }
  async function startTail(filter) {
    stopTail("stopped");
    $("tail-filter").value = filter;
    const current = { abort: new AbortController(), waiting: [], count: 0, timer: 0 };
    tail = current;
    text($("tail-start"), "Stop");
    text($("tail-status"), "connecting");
    text($("tail-count"), "");
    const flush = () => {
      current.timer = 0;
      $("tail").prepend(...current.waiting.splice(0).reverse().map(line));
      while ($("tail").childElementCount > TAIL_ROWS) $("tail").lastElementChild.remove();
      text($("tail-count"), count(current.count, "message"));
    };
    let end = "the broker has ended the stream";
    try {
      const query = new URLSearchParams({ topic: filter, format: "json", overflow: "drop_oldest" });
      const response = await ask("v1/events?" + query, { signal: current.abort.signal });
      text($("tail-status"), `listening to ${filter}`);
      for await (const event of events(response)) {
        if (event.type === "message") current.count += 1;
        current.waiting.push(event);
        if (current.waiting.length > TAIL_ROWS) current.waiting.shift();
        current.timer ||= setTimeout(flush, TAIL_SHOW_MS);
      }
    } catch (error) {
      end = error.name === "AbortError" ? "stopped" : error instanceof Refused ? error.message : "the connection was lost";
    }
    clearTimeout(current.timer);
    if (current.waiting.length) flush();
    if (tail === current) stopTail(end);
  }
  function stopTail(why) {
    if (!tail) return;
    const { abort } = tail;
    tail = null;
    abort.abort();
    text($("tail-start"), "Start");
    text($("tail-status"), why);
  }
  $("tail-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (tail) stopTail("stopped");
    else startTail($("tail-filter").value.trim());
  });
  $("tail-clear").addEventListener("click", () => $("tail").replaceChildren());

  // Publishing.
  // A header's value is bytes to fetch, a character for each.
  const utf8 = (value) => String.fromCharCode(...new TextEncoder().encode(value));
  async function publish() {
    const headers = new Headers({ "content-type": "text/plain; charset=utf-8" });
    const topic = $("publish-topic").value.trim();
    try {
      for (const name of ["tag", "key"]) {
        const value = $("publish-" + name).value.trim();
        if (value) headers.set("fanfare-" + name, utf8(value));
      }
      const response = await ask("v1/topics/" + encodeURIComponent(topic), {
        method: "POST",
        headers,
        body: $("publish-payload").value,
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const told = await response.json();
      const lost = told.dropped ? `, ${grouped(told.dropped)} lost` : "";
      text($("publish-status"), `${topic} ${grouped(told.sequence)}: ${grouped(told.delivered)} of ${grouped(told.matched)} got it${lost}`);
    } catch (error) {
      text($("publish-status"), "not published: " + (error instanceof Refused || error instanceof TypeError ? error.message : "no answer"));
    }
  }
  $("publish-form").addEventListener("submit", (event) => {
    event.preventDefault();
    publish();
  });
  $("publish-payload").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("publish-form").requestSubmit();
  });

  look();
})();
