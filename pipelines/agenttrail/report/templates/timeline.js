"use strict";
(() => {
  const open = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    const folded = target && (target.closest("details") || (target.tagName === "DETAILS" ? target : null));
    if (folded) folded.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  const chart = document.getElementById("timeline");
  const plots = [...chart.querySelectorAll(".plot")];
  if (!plots.length) return;
  const whole = 2000, closest = 20;
  const [start, stop] = [Number(chart.dataset.start) / 1000, Number(chart.dataset.stop) / 1000];
  const [first, last] = [Number(chart.dataset.first), Number(chart.dataset.last)];
  const ticks = document.getElementById("ticks");
  const view = document.getElementById("view");
  const pointer = document.getElementById("pointer");
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
    7 * 86400, 30 * 86400, 365 * 86400, 3650 * 86400].map((seconds) => seconds * 1000);
  const day = 86400000;
  let [from, to] = [0, whole];

  const at = (slot) => start + (slot / whole) * (stop - start);
  const iso = (time) => new Date(time).toISOString();
  const clock = (time) => (stop - start > day ? iso(time).slice(5, 19).replace("T", " ") : iso(time).slice(11, 19));
  const element = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  };
  const label = (time, step) => {
    const text = iso(time);
    if (step >= day) return text.slice(0, 10);
    if (stop - start > day) return text.slice(5, 16).replace("T", " ");
    return step >= 60000 ? text.slice(11, 16) : text.slice(11, 19);
  };
  const drawTicks = () => {
    const [a, b] = [at(from), at(to)];
    const room = plots[0].getBoundingClientRect().width / (stop - start > day ? 110 : 80);
    const step = steps.find((one) => (b - a) / one <= Math.max(2, room)) || steps[steps.length - 1];
    const made = [];
    for (let time = Math.ceil(a / step) * step; time <= b; time += step) {
      const share = ((time - a) / (b - a)) * 100;
      if (share < 4 || share > 96) continue;
      const x = share.toFixed(3) + "%";
      made.push(element("line", { x1: x, x2: x, y1: 0, y2: 5 }), element("text", { x, y: 18 }, label(time, step)));
    }
    ticks.replaceChildren(...made);
  };
  const show = (a, b) => {
    const width = Math.min(whole, Math.max(closest, b - a));
    from = Math.min(Math.max(0, (a + b - width) / 2), whole - width);
    to = from + width;
    for (const plot of plots) plot.setAttribute("viewBox", `${from} 0 ${width} ${plot.getAttribute("height")}`);
    drawTicks();
    view.textContent = `${clock(at(from))} to ${clock(at(to))}`;
  };
  const acts = {
    in: () => show(from + (to - from) / 4, to - (to - from) / 4),
    out: () => show(from - (to - from) / 2, to + (to - from) / 2),
    left: () => show(from - Math.min(from, (to - from) / 4), to - Math.min(from, (to - from) / 4)),
    right: () => show(from + Math.min(whole - to, (to - from) / 4), to + Math.min(whole - to, (to - from) / 4)),
    incident: () => show(first - (last - first) / 8 - 2, last + (last - first) / 8 + 2),
    all: () => show(0, whole),
  };
  const keys = { "+": "in", "=": "in", "-": "out", "−": "out", ArrowLeft: "left", ArrowRight: "right", 0: "all", Home: "all", i: "incident" };
  for (const part of document.querySelectorAll(".js")) part.hidden = false;
  chart.classList.add("zoomable");
  chart.tabIndex = 0;
  for (const button of document.querySelectorAll(".zoom button")) button.addEventListener("click", acts[button.dataset.act]);
  chart.addEventListener("keydown", (event) => {
    const act = !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
    if (!act) return;
    acts[act]();
    event.preventDefault();
  });

  const slot = (event) => {
    const box = plots[0].getBoundingClientRect();
    return from + (Math.min(Math.max(0, event.clientX - box.left), box.width) / box.width) * (to - from);
  };
  let grip = null;
  chart.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".plot") && event.button === 0 && event.pointerType !== "touch") {
      grip = slot(event);
      event.preventDefault();
      chart.focus({ preventScroll: true });
    }
  });
  chart.addEventListener("pointermove", (event) => {
    const here = slot(event);
    pointer.textContent = grip === null ? `pointer: ${clock(at(here))}` : `${clock(at(Math.min(grip, here)))} to ${clock(at(Math.max(grip, here)))}`;
  });
  addEventListener("pointerup", (event) => {
    if (grip === null) return;
    const [a, b] = [grip, slot(event)].sort((x, y) => x - y);
    grip = null;
    if (b - a > (to - from) / 100) show(a, b);
  });
  chart.addEventListener("dblclick", (event) => { if (event.target.closest(".plot")) acts.all(); });
  addEventListener("resize", drawTicks);
  show(0, whole);
})();
