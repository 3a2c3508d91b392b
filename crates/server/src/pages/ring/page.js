// Makes the ring's page live, sortable and searchable, and asks before it forgets. Without it the page is a plain table with
// forms. Names of instances are data: they reach the page as text, never as markup.
"use strict";
(() => {
  const PERIOD_MS = 5000;
  const PATIENCE_MS = 10000;
  const SETTLES_MS = 1000;
  const UNHEALTHY = "Unhealthy";
  const STATES = ["ACTIVE", "LEAVING", "PENDING", "JOINING", "LEFT", "READONLY", UNHEALTHY];
  const COLOURS = { ACTIVE: "good", PENDING: "busy", JOINING: "busy", LEAVING: "busy", [UNHEALTHY]: "bad" };

  const byId = (id) => document.getElementById(id);
  const table = byId("ring");
  const body = table.tBodies[0];
  const [filter, states, live, told] = ["filter", "states", "live", "told"].map(byId);
  const forgetAll = byId("forget-unhealthy");
  const token = byId("token");
  const forgets = table.dataset.forget !== "never";

  const number = { numeric: true, class: "number" };
  const COLUMNS = [
    { label: "Instance ID", value: (shard) => shard.id },
    { label: "Availability Zone", value: (shard) => shard.zone },
    { label: "State", value: (shard) => shard.state, fill: fillState },
    { label: "Address", value: (shard) => shard.address },
    // Too wide with the zone, which is always the same.
    { label: "Registered At", value: (shard) => shard.registered_timestamp.replace(" +0000 UTC", "") },
    { label: "Last Heartbeat", value: (shard) => shard.heartbeat_age_seconds, numeric: true, fill: fillHeartbeat },
    { label: "Tokens", value: (shard) => shard.token_count, ...number },
    { label: "Ownership", value: (shard) => shard.ownership, text: (shard) => percent(shard.ownership), ...number },
    { label: "Diff From Expected", value: (shard) => shard.ownership_diff, text: diff, ...number },
    { label: "Versions", value: versions, there: (shards) => shards.some((shard) => shard.versions) },
    { label: "Actions", fill: fillActions, there: () => forgets },
  ];

  let shards = [];
  // What the server wrote is replaced by the first answer; until then there is nothing to sort or to search.
  let known = false;
  let columns = [];
  // Id to row. Rows are kept, so that what has the focus, or is being selected, stays what it is.
  let rows = new Map();
  let sorting = null;
  let conflictsShown = null;
  // The answer that is on its way.
  let asking = null;
  let updatedAt = null;
  let failing = false;
  const collator = new Intl.Collator("en", { numeric: true });

  function age(seconds) {
    const [sign, s] = seconds < 0 ? ["-", -seconds] : ["", seconds];
    const [m, h, d] = [60, 3600, 86400].map((unit) => Math.floor(s / unit));
    if (s < 60) return `${sign}${s}s`;
    if (s < 3600) return `${sign}${m}m ${s % 60}s`;
    return s < 86400 ? `${sign}${h}h ${m % 60}m` : `${sign}${d}d ${h % 24}h`;
  }

  function percent(fraction) {
    return `${(fraction * 100).toFixed(2)}%`;
  }

  function diff({ ownership_diff: fraction }) {
    if (fraction === null) return "";
    return `${fraction < 0 ? "" : "+"}${percent(fraction)}`;
  }

  function versions(shard) {
    return Object.entries(shard.versions ?? {}).map(([component, version]) => `${component}=${version}`).join(", ");
  }

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  function fillState(cell, shard) {
    const text = shard.healthy ? shard.state : `${shard.state} was ${shard.stored_state}`;
    if (cell.textContent === text) return;
    cell.className = COLOURS[shard.state] ?? "idle";
    cell.textContent = shard.state;
    if (!shard.healthy) cell.append(" ", element("small", { textContent: `was ${shard.stored_state}` }));
  }

  function fillHeartbeat(cell, shard) {
    const ago = `${age(shard.heartbeat_age_seconds)} ago `;
    if (cell.firstChild === null) cell.append(ago, element("span"));
    const [text, word] = cell.childNodes;
    if (text.data !== ago) text.data = ago;
    setText(word, shard.heartbeat_fresh ? "fresh" : "stale");
    word.className = shard.heartbeat_fresh ? "good" : "bad";
    if (cell.title !== shard.timestamp) cell.title = shard.timestamp;
  }

  function fillActions(cell, shard) {
    if (cell.firstChild !== null) return;
    const button = element("button", { name: "forget", value: shard.id, textContent: "Forget" });
    button.setAttribute("aria-label", `Forget ${shard.id}`);
    const page = element("input", { type: "hidden", name: "page", value: "1" });
    cell.append(element("form", { method: "post" }, page, button));
  }

  function fillRow(row, shard) {
    columns.forEach((column, at) => {
      const cell = row.cells[at];
      if (column.fill) column.fill(cell, shard);
      else setText(cell, String((column.text ?? column.value)(shard)));
    });
  }

  function makeRow() {
    const row = element("tr");
    for (const column of columns) {
      const cell = element("td", { className: column.class ?? "" });
      cell.dataset.label = column.label;
      row.append(cell);
    }
    return row;
  }

  function makeHeader() {
    const headings = columns.map((column) => {
      const heading = element("th", { scope: "col", className: column.class ?? "" });
      if (!column.value) {
        heading.textContent = column.label;
        return heading;
      }
      const button = element("button", { type: "button", className: "sort", textContent: column.label });
      button.addEventListener("click", () => sortBy(column));
      heading.append(button);
      return heading;
    });
    table.tHead.rows[0].replaceChildren(...headings);
    showSorting();
  }

  // Columns come and go with what is in the ring: versions are shown only if anybody has some.
  function chooseColumns() {
    const chosen = COLUMNS.filter((column) => !column.there || column.there(shards));
    if (chosen.length === columns.length && chosen.every((column, at) => column === columns[at])) return;
    columns = chosen;
    rows = new Map();
    keepingFocus(makeHeader);
  }

  function sortBy(column) {
    // Of numbers, the greatest are looked for at first: the oldest heartbeat, the greatest share.
    const first = column.numeric ? "descending" : "ascending";
    const other = column.numeric ? "ascending" : "descending";
    const again = sorting !== null && sorting.column === column && sorting.direction === first;
    sorting = { column, direction: again ? other : first };
    showSorting();
    arrange();
  }

  function showSorting() {
    columns.forEach((column, at) => {
      const heading = table.tHead.rows[0].cells[at];
      if (sorting !== null && sorting.column === column) heading.setAttribute("aria-sort", sorting.direction);
      else heading.removeAttribute("aria-sort");
    });
  }

  function compare(one, other) {
    const [a, b] = [sorting.column.value(one), sorting.column.value(other)];
    // Who has no value is last in both directions.
    if (a === null || b === null) return (a === null) - (b === null);
    const order = sorting.column.numeric ? a - b : collator.compare(a, b);
    return sorting.direction === "descending" ? -order : order;
  }

  function matches(shard) {
    if (states.value !== "" && states.value !== shard.state) return false;
    const wanted = filter.value.trim().toLowerCase();
    if (wanted === "") return true;
    const state = shard.healthy ? [] : [shard.stored_state];
    const texts = [shard.id, shard.zone, shard.address, shard.state, ...state];
    return texts.some((text) => text.toLowerCase().includes(wanted));
  }

  // Runs what may move or remove the element that has the focus, and gives it back, or gives it to its neighbour.
  function keepingFocus(change) {
    const focused = document.activeElement;
    const row = focused?.closest("#ring tbody tr");
    const at = row ? row.sectionRowIndex : -1;
    const heading = focused?.closest("#ring th");
    const label = heading?.textContent;
    change();
    if (document.activeElement === focused) return;
    let next = focused?.isConnected ? focused : null;
    if (next === null && at >= 0) {
      // The same instance's button, if its row was made anew.
      const same = rows.get(focused.value);
      const row = same?.isConnected ? same : body.rows[Math.min(at, body.rows.length - 1)];
      next = row?.querySelector("button") ?? filter;
    } else if (next === null && heading) {
      next = [...table.tHead.querySelectorAll("button")].find((button) => button.textContent === label);
    }
    next?.focus({ preventScroll: true });
  }

  // Puts the rows that match into the wanted order, all at once, and only if they are not in it already.
  function arrange() {
    if (!known) return;
    const wanted = shards.filter(matches);
    if (sorting !== null) wanted.sort(compare);
    setText(byId("matching"), wanted.length === shards.length ? "" : `${wanted.length} of ${shards.length} shown`);
    const list = wanted.map((shard) => rows.get(shard.id));
    if (list.length === body.rows.length && list.every((row, at) => row === body.rows[at])) return;
    keepingFocus(() => {
      const fragment = document.createDocumentFragment();
      for (const row of list) fragment.append(row);
      body.replaceChildren(fragment);
    });
  }

  function show(status) {
    shards = status.shards ?? [];
    known = true;
    chooseColumns();
    const next = new Map();
    for (const shard of shards) {
      const row = rows.get(shard.id) ?? makeRow();
      fillRow(row, shard);
      next.set(shard.id, row);
    }
    rows = next;
    showSummary(status);
    showConflicts(status);
    offerStates();
    arrange();
  }

  function showSummary(status) {
    const unhealthy = shards.filter((shard) => !shard.healthy).length;
    const good = unhealthy === 0 && status.token_conflict_count === 0 && status.store_trouble === null;
    setText(byId("summary"), status.summary);
    byId("summary").className = good ? "good" : "bad";
    setText(byId("now"), status.now);
    setText(byId("heard"), status.storageLastUpdated);
    if (forgetAll === null) return;
    forgetAll.hidden = unhealthy === 0;
    setText(forgetAll.querySelector("button"), `Forget all unhealthy (${unhealthy})`);
  }

  function showConflicts({ token_conflicts: conflicts, token_conflict_count: count }) {
    const shown = JSON.stringify([count, conflicts]);
    if (shown === conflictsShown) return;
    conflictsShown = shown;
    const parts = [];
    if (count > 0) parts.push(element("h2", { textContent: "Token conflicts" }));
    if (count > conflicts.length) parts.push(element("p", { textContent: `The first ${conflicts.length} of ${count}.` }));
    const items = conflicts.map(({ token: claimed, owners }) =>
      element("li", { textContent: `${claimed}: ${owners.join(", ")}` }));
    if (items.length > 0) parts.push(element("ul", {}, ...items));
    byId("conflicts").replaceChildren(...parts);
  }

  // States that this page does not know can be chosen as soon as somebody is in one.
  function offerStates() {
    const offered = new Set([...states.options].map((option) => option.value));
    for (const state of new Set([...STATES, ...shards.map((shard) => shard.state)])) {
      if (!offered.has(state)) states.append(element("option", { value: state, textContent: state }));
    }
  }

  function time(date) {
    return date.toTimeString().slice(0, 8);
  }

  function showUpdated() {
    const at = updatedAt === null ? "" : time(updatedAt);
    const word = live.checked ? (failing ? "not live" : "live") : "paused";
    setText(byId("updated"), at === "" ? word : `${word}, updated ${at}`);
  }

  function why(error) {
    if (error.name === "TimeoutError") return `no answer within ${PATIENCE_MS / 1000} s`;
    if (error instanceof TypeError) return "the server cannot be reached";
    if (error instanceof SyntaxError) return "the answer is not the ring's JSON";
    return error.message;
  }

  // This very page, as JSON; without tokens, which would be most of its bytes and are not shown.
  async function read() {
    const url = new URL(location.href);
    url.hash = "";
    url.searchParams.delete("told");
    url.searchParams.set("tokens", "false");
    const answer = await fetch(url, {
      headers: { Accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return answer.json();
  }

  function refresh() {
    asking ??= update().finally(() => {
      asking = null;
    });
    return asking;
  }

  async function update() {
    let status = null;
    let problem = "";
    try {
      status = await read();
      updatedAt = new Date();
    } catch (error) {
      const since = updatedAt === null ? "when the page was opened" : `at ${time(updatedAt)}`;
      problem = `Cannot update: ${why(error)}. What is shown was so ${since}.`;
    }
    failing = problem !== "";
    setText(byId("trouble"), problem);
    if (status !== null) show(status);
    showUpdated();
  }

  // Nobody sees a hidden page, and a paused one is to stay as it is.
  function refreshIfWatched() {
    if (live.checked && !document.hidden) refresh();
  }

  function question(button) {
    const back = "An instance that is alive comes back with its next heartbeat.";
    if (button.name === "forget") {
      const shard = shards.find(({ id }) => id === button.value);
      const state = shard === undefined ? "state unknown"
        : `${shard.state}${shard.healthy ? "" : `, was ${shard.stored_state}`}, last heard ${age(shard.heartbeat_age_seconds)} ago`;
      return `Forget ${button.value} (${state})?\n\n${back}`;
    }
    const named = shards.filter((shard) => !shard.healthy).map((shard) => `${shard.id} (${shard.state}, was ${shard.stored_state})`);
    const list = named.slice(0, 10).join("\n") + (named.length > 10 ? `\nand ${named.length - 10} more` : "");
    return `Forget all instances that are unhealthy by then? Now these are ${named.length}:\n\n${list}\n\n${back}`;
  }

  // Answers with what came of it, in words.
  async function send(button) {
    const headers = { Accept: "application/json" };
    if (token !== null) headers.Authorization = `Bearer ${token.value.trim()}`;
    try {
      const answer = await fetch(location.pathname, {
        method: "POST",
        headers,
        body: new URLSearchParams([[button.name, button.value]]),
      });
      if (answer.ok) return (await answer.json()).message;
      return `Not forgotten: the server answers ${answer.status}: ${(await answer.text()).trim()}`;
    } catch (error) {
      return `Unknown whether it was forgotten: ${why(error)}.`;
    }
  }

  async function forget(button) {
    if (token !== null && token.value.trim() === "") {
      setText(told, "To forget an instance, give the admin token first.");
      token.focus();
      return;
    }
    // Who is asked must be told the state.
    if (!known) await refresh();
    if (!confirm(question(button))) return;
    setText(told, "Forgetting…");
    setText(told, await send(button));
    // An answer that was on its way may be of before. The process itself hears from the store a moment later.
    await asking;
    await refresh();
    setTimeout(refresh, SETTLES_MS);
  }

  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button?.name !== "forget" && button?.name !== "forget_unhealthy") return;
    event.preventDefault();
    forget(button);
  });
  filter.addEventListener("input", arrange);
  states.addEventListener("change", arrange);
  live.addEventListener("change", () => {
    showUpdated();
    refreshIfWatched();
  });
  document.addEventListener("visibilitychange", refreshIfWatched);

  // What was told once is not told again when the page is loaded anew.
  const here = new URL(location.href);
  if (here.searchParams.has("told")) {
    here.searchParams.delete("told");
    history.replaceState(null, "", here);
  }
  table.classList.add("sortable");
  byId("controls").hidden = false;
  offerStates();
  showUpdated();
  refresh();
  setInterval(refreshIfWatched, PERIOD_MS);
})();
