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

  const grouped = (number) => number.toLocaleString("en-US");
  const compare = (key, sign) => (a, b) => {
    const [x, y] = [a.dataset[key], b.dataset[key]];
    return sign * (numeric.has(key) ? x - y : x.localeCompare(y));
  };
  const sort = (key, falling) => {
    for (const head of table.tHead.rows[0].cells) {
      if (head.dataset.key === key) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    rows.sort(compare(key, falling ? -1 : 1));
    body.append(...rows);
  };
  for (const head of table.tHead.rows[0].cells) {
    const key = head.dataset.key;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      sort(key, head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numeric.has(key));
    });
  }
  if (!form) return;

  const field = (id) => document.getElementById(id);
  const seconds = (id) => (field(id).value ? Date.parse(field(id).value + "Z") / 1000 : NaN);
  const matches = (row) => {
    const [severity, agent, technique] = ["severity", "agent", "technique"].map((id) => field(id).value);
    const [since, until] = [seconds("since"), seconds("until")];
    return (
      (!severity || Number(row.dataset.rank) >= Number(severity)) &&
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
    shown.textContent = count === rows.length ? said : `${grouped(count)} of ${grouped(rows.length)} incidents pass the filters.`;
  };
  form.hidden = field("filtering").hidden = false;
  field("sort").addEventListener("change", () => sort(field("sort").value, numeric.has(field("sort").value)));
  for (const event of ["input", "change"]) form.addEventListener(event, filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); sort("risk", true); }));
  filter();
})();
