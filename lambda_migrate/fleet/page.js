"use strict";
// Searches the tables of failures and of targets. Scrolling creates the rows, so a hundred thousand cost no more than a
// hundred. All text goes through textContent, so untrusted text never becomes part of the page's markup.
(() => {
  const STEP = 100;
  const LONG = 80;

  // As the page's own `_short`: the end of a long name tells it from others.
  const short = (text) => (text.length > LONG ? `${text.slice(0, 30)}…${text.slice(-45)}` : text);

  function duration(milliseconds) {
    if (milliseconds === null) return "";
    if (milliseconds < 1000) return `${milliseconds} ms`;
    if (milliseconds < 60000) return `${(milliseconds / 1000).toFixed(1)} s`;
    const seconds = Math.round(milliseconds / 1000);
    const minutes = Math.floor(seconds / 60);
    return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  // One table. `columns` have the class, the label on a telephone and the element of each cell; a column with `select`
  // has a select of that name in the form. `entries` are arrays of texts, with the whole name at their end.
  function searchable(suffix, entries, columns) {
    const at = (name) => document.getElementById(name + suffix);
    const [form, rows, more, found] = ["filter", "rows", "more", "found"].map(at);
    const haystacks = entries.map((entry) => entry.join("\n").toLowerCase());
    let matching = [];
    let shown = 0;

    function row(entry) {
      const line = document.createElement("tr");
      columns.forEach(({ kind, label, tag }, place) => {
        const cell = document.createElement(place ? "td" : "th");
        if (place === 0) cell.scope = "row";
        cell.className = kind;
        if (label) cell.dataset.label = label;
        // <bdi> isolates the direction of writing: a name in Arabic does not reorder the text around it.
        const own = document.createElement(tag || "bdi");
        own.textContent = place ? entry[place] : short(entry[0]);
        if (place === 0) own.title = entry[columns.length];
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
      const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = columns
        .map(({ select }, place) => [place, select && form.elements[select].value])
        .filter(([, value]) => value);
      matching = entries.filter(
        (entry, number) =>
          chosen.every(([place, value]) => entry[place] === value) &&
          words.every((word) => haystacks[number].includes(word)),
      );
      rows.replaceChildren();
      shown = 0;
      show(STEP);
      const all = entries.length.toLocaleString("en");
      const count = matching.length.toLocaleString("en");
      found.textContent = matching.length === entries.length ? `${all} shown` : `${count} of ${all} match`;
    }

    form.hidden = false;
    form.addEventListener("input", search);
    form.addEventListener("reset", () => setTimeout(search));
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => show(STEP));
    new IntersectionObserver((seen) => {
      if (seen.some((entry) => entry.isIntersecting) && !more.hidden) show(STEP);
    }).observe(more);
    if (!suffix) addEventListener("beforeprint", () => show(matching.length));
    search();
  }

  const read = (id) => {
    const element = document.getElementById(id);
    return element && JSON.parse(element.textContent);
  };

  const failures = read("failures");
  if (failures) {
    const entries = failures.rows.map((row) => [...row, failures.prefix + row[0]]);
    searchable("", entries, [
      { kind: "text" },
      { label: "error", tag: "code", select: "type" },
      { kind: "text" },
      { kind: "server", label: "server", select: "server" },
      { kind: "number", label: "wave" },
      { kind: "number", label: "took" },
    ]);
  }
  const targets = read("targets");
  if (targets) {
    const { prefix, outcomes, revisions, servers } = targets;
    const entries = targets.rows.map(([name, outcome, revision, ms, server, wave]) => [
      name, outcomes[outcome], revisions[revision], duration(ms), servers[server], String(wave), prefix + name,
    ]);
    searchable("-targets", entries, [
      { kind: "text" },
      { label: "outcome", select: "outcome" },
      { label: "revision", tag: "code", select: "revision" },
      { kind: "number", label: "took" },
      { kind: "server", label: "server", select: "server" },
      { kind: "number", label: "wave" },
    ]);
  }
})();
