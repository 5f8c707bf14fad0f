"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Sorting: a heading's button turns its own table; numbers by data-v, text by the letters of the user's language.
  const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const x = a === "" ? NaN : Number(a), y = b === "" ? NaN : Number(b);
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  for (const button of all("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), body = button.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (one, two) => {
        const a = value(one, head.cellIndex), b = value(two, head.cellIndex);
        if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is not known stands last, either way
        return (down ? -1 : 1) * compare(a, b);
      };
      body.append(...[...body.rows].sort(order));
    });
  }

  // Filters: rows that do not match go, and so do their points in all charts.
  const text = document.getElementById("filter"), told = document.getElementById("shown");
  const choices = all("select[data-column]");
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean), gone = new Set();
    const rows = all("#results tbody tr");
    for (const row of rows) {
      const said = row.textContent.toLowerCase();
      const kept = words.every((word) => said.includes(word)) &&
        choices.every((choice) => !choice.value || row.cells[choice.dataset.column].textContent === choice.value);
      row.classList.toggle("gone", !kept);
      if (!kept) gone.add(row.dataset.row);
    }
    for (const point of all(".pt[data-row]")) point.classList.toggle("gone", gone.has(point.dataset.row));
    for (const front of all(".front")) front.classList.toggle("gone", gone.size > 0); // it is of all points
    told.textContent = `${rows.length - gone.size} of ${rows.length} rows`;
  };
  if (text) {
    for (const field of [text, ...choices]) field.addEventListener("input", filter);
    document.getElementById("reset").addEventListener("click", () => {
      for (const field of [text, ...choices]) field.value = "";
      filter();
    });
  }

  // What a point or a map says, on hover and on focus; Escape takes it away.
  const tip = document.getElementById("tip");
  let shown = null;
  const show = (thing) => {
    shown = thing;
    tip.textContent = thing.dataset.tip;
    tip.hidden = false;
    const at = thing.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(at.right + 8, innerWidth - own.width - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(at.top - 4, innerHeight - own.height - 4))}px`;
  };
  const hide = () => { shown = null; tip.hidden = true; };
  const leave = (thing) => { if (shown === thing) hide(); };
  for (const [event, act] of [["pointerover", show], ["focusin", show], ["pointerout", leave], ["focusout", leave]]) {
    document.addEventListener(event, (e) => {
      const thing = e.target.closest?.("[data-tip]");
      if (thing) act(thing);
    });
  }
  document.addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });
  document.addEventListener("scroll", () => {
    if (shown && shown === document.activeElement) show(shown); else hide(); // focus scrolls by itself
  }, { passive: true });
})();
