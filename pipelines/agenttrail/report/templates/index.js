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
  // the title is the link; with a mouse all of its row is, but for what does something else or is being copied
  body.addEventListener("click", (event) => {
    const link = event.target.closest("tr").querySelector("a.title");
    if (!link || event.target.closest("a, button, code, summary") || String(getSelection())) return;
    if (event.ctrlKey || event.metaKey) window.open(link.href);
    else link.click();
  });
  for (const row of rows) if (row.querySelector("a.title")) row.dataset.page = "";
  table.classList.add("pressable");
  if (!form) return;

  const field = (id) => document.getElementById(id);
  const seconds = (id) => (field(id).value ? Date.parse(field(id).value + "Z") / 1000 : NaN);
  // an ambiguous incident is shown with each agent that is a candidate
  const may = (row, agent) => [...row.querySelectorAll(".candidate")].some((one) => one.dataset.agent === agent);
  const matches = (row) => {
    const [severity, agent, technique] = ["severity", "agent", "technique"].map((id) => field(id).value);
    const [since, until] = [seconds("since"), seconds("until")];
    return (
      (!severity || Number(row.dataset.rank) >= Number(severity)) &&
      (!agent || row.dataset.agent === agent || may(row, agent)) &&
      (!technique || row.dataset.techniques.split(" ").some((one) => one === technique || one.startsWith(technique + "."))) &&
      !(row.dataset.until < since) &&
      !(row.dataset.from >= until)
    );
  };
  // what stands above the table counts what passes
  const banners = () => {
    const left = rows.filter((row) => !row.hidden);
    const of = (key, some) => new Set(some.map((row) => row.dataset[key]));
    for (const key of ["id", "sandbox", "agent"]) {
      const known = of(key, left);
      for (const one of document.querySelectorAll(`.banner .one[data-${key}]`)) one.hidden = !known.has(one.dataset[key]);
    }
    for (const banner of document.querySelectorAll(".banner")) banner.hidden = !banner.querySelector(".one:not([hidden])");
    const counted = document.querySelector(".banner .left");
    if (!counted) return;
    const [own, all] = [left, rows].map((some) => of("sandbox", some.filter((row) => row.dataset.state === "running")).size);
    counted.firstElementChild.textContent = own === all ? "" : `${grouped(own)} of `;
    counted.closest(".banner").hidden = !own;
  };
  const filter = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = !matches(row);
      count += !row.hidden;
    }
    banners();
    field("none").hidden = count > 0;
    for (const badge of document.querySelectorAll(".badge[data-rank]")) {
      const own = rows.filter((row) => row.dataset.rank === badge.dataset.rank);
      const left = own.filter((row) => !row.hidden).length;
      badge.firstElementChild.textContent = left === own.length ? "" : `${grouped(left)} of `;
    }
    shown.textContent = count === rows.length ? said : `${grouped(count)} of ${grouped(rows.length)} incidents pass the filters.`;
  };
  // filters stand in the address, so that going back or passing it on keeps them
  const fields = ["severity", "agent", "technique", "since", "until"];
  const keep = () => {
    const told = new URLSearchParams(fields.filter((id) => field(id).value).map((id) => [id, field(id).value]));
    history.replaceState(null, "", told.size ? `#${told}` : location.pathname + location.search);
  };
  const restore = () => {
    const told = new URLSearchParams(location.hash.slice(1));
    if (location.hash && !fields.some((id) => told.has(id))) return;
    for (const id of fields) field(id).value = told.get(id) || "";
    if (fields.some((id) => field(id).value)) field("filtering").open = true;
    filter();
  };
  form.hidden = field("filtering").hidden = false;
  field("sort").addEventListener("change", () => sort(field("sort").value, numeric.has(field("sort").value)));
  for (const event of ["input", "change"]) form.addEventListener(event, () => { filter(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); keep(); sort("risk", true); }));
  addEventListener("hashchange", restore);
  addEventListener("pageshow", restore);
  filter();
  restore();
})();
