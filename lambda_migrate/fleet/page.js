"use strict";
// Searches the failures. Scrolling creates the rows, so ten thousand of them cost no more than a hundred.
// All text goes through textContent, so untrusted text never becomes part of the page's markup.
(() => {
  const STEP = 100;
  const form = document.getElementById("filter");
  if (!form) return;
  const failures = JSON.parse(document.getElementById("failures").textContent);
  const rows = document.getElementById("rows");
  const more = document.getElementById("more");
  const found = document.getElementById("found");
  const { text, type, server } = form.elements;
  const haystacks = failures.map((failure) => failure.join("\n").toLowerCase());
  const labels = ["", "error", "", "server", "wave"];
  let matching = [];
  let shown = 0;

  function row(failure) {
    const line = document.createElement("tr");
    failure.forEach((value, column) => {
      const cell = document.createElement(column ? "td" : "th");
      if (column === 0) cell.scope = "row";
      cell.className = ["text", "", "text", "server", "number"][column];
      if (labels[column]) cell.dataset.label = labels[column];
      // <bdi> isolates the direction of writing: a name in Arabic does not reorder the text around it.
      const own = document.createElement(column === 1 ? "code" : "bdi");
      own.textContent = value;
      cell.append(own);
      line.append(cell);
    });
    return line;
  }

  function show(count) {
    const upTo = Math.min(shown + count, matching.length);
    rows.append(...matching.slice(shown, upTo).map(row));
    shown = upTo;
    more.hidden = shown === matching.length;
    more.textContent = `Show more (${(matching.length - shown).toLocaleString("en")} left)`;
  }

  function search() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = failures.filter(
      (failure, number) =>
        (!type.value || failure[1] === type.value) &&
        (!server.value || failure[3] === server.value) &&
        words.every((word) => haystacks[number].includes(word)),
    );
    rows.replaceChildren();
    shown = 0;
    show(STEP);
    const all = failures.length.toLocaleString("en");
    found.textContent =
      matching.length === failures.length ? `${all} shown` : `${matching.length.toLocaleString("en")} of ${all} match`;
  }

  form.hidden = false;
  form.addEventListener("input", search);
  form.addEventListener("reset", () => setTimeout(search));
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => show(STEP));
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !more.hidden) show(STEP);
  }).observe(more);
  addEventListener("beforeprint", () => show(matching.length));
  search();
})();
