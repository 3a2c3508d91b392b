// Makes the tables of the page sortable, asks before a key is healed, and sends the admin token along. Without it the page is
// plain tables with forms. Names are data: they reach the page as text, never as markup.
"use strict";
(() => {
  const PATIENCE_MS = 15000;
  const told = document.getElementById("told");
  const token = document.getElementById("token");
  const collator = new Intl.Collator("en", { numeric: true });

  // What a cell is sorted by: a number if it has one, else its text. Empty cells are last in both directions.
  function order(row, at) {
    const cell = row.cells[at];
    const text = cell.dataset.order ?? cell.textContent.trim();
    if (text === "") return null;
    const number = Number(text);
    return Number.isNaN(number) ? text : number;
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return a - b;
    return collator.compare(a, b);
  }

  function sort(table, heading) {
    const at = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [order(row, at), row]);
    rows.sort(([a], [b]) => (down && a !== null && b !== null ? -compare(a, b) : compare(a, b)));
    body.replaceChildren(...rows.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table.cards")) {
    for (const heading of table.tHead.rows[0].cells) {
      if (heading.textContent === "Show" || heading.textContent === "Actions") continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = heading.textContent;
      button.addEventListener("click", () => sort(table, heading));
      heading.replaceChildren(button);
    }
  }

  function why(error) {
    if (error.name === "TimeoutError") return `no answer within ${PATIENCE_MS / 1000} s`;
    if (error instanceof TypeError) return "the server cannot be reached";
    return error.message;
  }

  // Answers with what came of it, in words.
  async function heal(form, key) {
    const headers = { Accept: "application/json" };
    if (token !== null) headers.Authorization = `Bearer ${token.value.trim()}`;
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        headers,
        body: new URLSearchParams([["key", key]]),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (answer.ok) return (await answer.json()).message;
      return `Not healed: the server answers ${answer.status}: ${(await answer.text()).trim()}`;
    } catch (error) {
      return `Unknown whether it was healed: ${why(error)}.`;
    }
  }

  document.addEventListener("submit", async (event) => {
    const button = event.submitter;
    if (button?.name !== "key") return;
    event.preventDefault();
    if (token !== null && token.value.trim() === "") {
      told.textContent = "To heal a key, give the admin token first.";
      token.focus();
      return;
    }
    const warning =
      "What is ahead of this member's clock is written anew: there what this member holds overrules what all others hold.";
    if (!confirm(`Heal ${button.value}?\n\n${warning}`)) return;
    told.textContent = "Healing…";
    told.textContent = await heal(event.target, button.value);
  });

  if (token !== null) {
    document.getElementById("controls").hidden = false;
    for (const form of document.querySelectorAll("form.heal")) form.hidden = false;
  }

  // What was told once is not told again when the page is loaded anew.
  const here = new URL(location.href);
  if (here.searchParams.has("told")) {
    here.searchParams.delete("told");
    history.replaceState(null, "", here);
  }
})();
