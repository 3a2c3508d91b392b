// Renews what the page tells for as long as it is looked at. Without it the page is plain tables. What comes is the page
// itself, whose names are escaped by the server; nothing in it is run.
"use strict";
(() => {
  const PERIOD_MS = 5000;
  const PATIENCE_MS = 10000;
  const live = document.getElementById("live");
  const trouble = document.getElementById("trouble");
  // An answer is on its way.
  let asking = false;

  function why(error) {
    if (error.name === "TimeoutError") return `no answer within ${PATIENCE_MS / 1000} s`;
    if (error instanceof TypeError) return "the server cannot be reached";
    return error.message;
  }

  async function renew() {
    if (asking || !live.checked || document.hidden) return;
    asking = true;
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const status = page.getElementById("status");
      if (!answer.ok || status === null) throw new Error(`the server answers ${answer.status}`);
      document.getElementById("status").replaceWith(status);
      trouble.textContent = "";
    } catch (error) {
      trouble.textContent = `What is shown is old: ${why(error)}.`;
    }
    asking = false;
  }

  document.getElementById("controls").hidden = false;
  setInterval(renew, PERIOD_MS);
  document.addEventListener("visibilitychange", renew);
  live.addEventListener("change", renew);
})();
