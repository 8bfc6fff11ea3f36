"use strict";
(() => {
  const table = document.getElementById("incidents");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const shown = document.getElementById("shown");
  const said = shown.textContent;
  const form = document.getElementById("filters");
  const numeric = new Set(["rank", "risk", "from"]);

  const compare = (key, sign) => (a, b) => {
    const [x, y] = [a.dataset[key], b.dataset[key]];
    return sign * (numeric.has(key) ? x - y : x.localeCompare(y));
  };
  for (const head of table.tHead.rows[0].cells) {
    const key = head.dataset.key;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric.has(key);
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      rows.sort(compare(key, falling ? -1 : 1));
      body.append(...rows);
    });
  }
  if (!form) return;

  const field = (id) => document.getElementById(id);
  const ranks = { informational: 0, low: 1, medium: 2, high: 3, critical: 4 };
  const seconds = (id) => (field(id).value ? Date.parse(field(id).value + "Z") / 1000 : NaN);
  const matches = (row) => {
    const [severity, agent, technique] = ["severity", "agent", "technique"].map((id) => field(id).value);
    const [since, until] = [seconds("since"), seconds("until")];
    return (
      (!severity || row.dataset.rank >= ranks[severity]) &&
      (!agent || row.dataset.agent === agent) &&
      (!technique || row.dataset.techniques.split(" ").some((one) => one === technique || one.startsWith(technique + "."))) &&
      !(row.dataset.until < since) &&
      !(row.dataset.from >= until)
    );
  };
  const filter = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = !matches(row);
      count += !row.hidden;
    }
    shown.textContent = count === rows.length ? said : `${count} of ${rows.length} incidents pass the filters.`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();
})();
