// A run's metrics, each in a small chart, drawn when the run is opened.

const smallCharts = (part) => {
  const run = part.dataset.run;
  for (const place of part.querySelectorAll("[data-metric]")) {
    if (place.childElementCount) continue;
    const metric = place.dataset.metric, curve = curveOf(run, metric, "step");
    const value = element("output");
    const canvas = element("div", { className: "canvas" });
    place.append(element("p", {}, element("span", { textContent: metric, title: metric }), value), canvas);
    const at = (step) => {
      const found = step === null || !curve ? null : valueAt(curve, step);
      value.textContent = found === null ? (curve ? exact(curve[1][curve[1].length - 1]) : "–") : `${exact(found)} at ${exact(Math.round(step))}`;
      return `${metric} ${value.textContent}`;
    };
    let chart = null, last = "";
    const draw = () => {
      chart?.destroy();
      const lines = curve ? [{ curve, stroke: colour(0), small: true }] : [];
      chart = plot(canvas, lines, [], { height: 120, label: `${metric} over steps, last ${exact(curve?.[1].at(-1))}`, sync: run, onMove: (step) => { last = at(step); } });
      at(null);
    };
    draw();
    byKeyboard(canvas, () => chart, () => last);
    drawn.add({ place: canvas, draw, size: () => chart.setSize({ width: canvas.clientWidth, height: 120 }) });
  }
};
const parts = [...document.querySelectorAll("[data-run]")];
for (const part of parts) part.addEventListener("toggle", () => part.open && smallCharts(part));

// Charts are drawn when they come near, all of them for paper, and again where colours or widths change.

const waiting = new Map([...document.querySelectorAll("[data-chart]")].map((figure) => [figure, figure.dataset.chart]));
const begin = (figure) => {
  const name = waiting.get(figure);
  if (waiting.delete(figure)) groupsChart(figure, name, DATA.charts[name]);
};
const near = new IntersectionObserver((entries) => entries.forEach((one) => {
  if (one.isIntersecting) { near.unobserve(one.target); begin(one.target); }
}), { rootMargin: "800px" });
for (const figure of waiting.keys()) near.observe(figure);
const redraw = () => drawn.forEach((one) => one.draw());
night.addEventListener("change", redraw);
addEventListener("beforeprint", () => { printing = true; [...waiting.keys()].forEach(begin); redraw(); });
addEventListener("afterprint", () => { printing = false; redraw(); });
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => drawn.forEach((one) => one.place.clientWidth && one.size()), 100);
});

// Links into what is folded, copying, and a page that is written again.

const reveal = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest?.('a[href^="#"]');
  if (link && link.hash === location.hash) reveal();
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  const told = (word) => {
    button.firstChild.textContent = live.textContent = word;
    setTimeout(() => { button.firstChild.textContent = "Copy"; }, 1500);
  };
  const choose = () => { getSelection().selectAllChildren(code); told("Selected"); };
  if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => told("Copied"), choose);
  else choose();
});

const reload = document.querySelector("[data-reload]");
if (reload) {
  const key = `hsw-report ${location.pathname}`;
  const kept = JSON.parse(sessionStorage.getItem(key) ?? "{}");
  reload.checked = kept.reload ?? true;
  for (const name of kept.open ?? []) { const part = document.getElementById(name); if (part) part.open = true; }
  setInterval(() => {
    const open = parts.filter((part) => part.open).map((part) => part.id);
    sessionStorage.setItem(key, JSON.stringify({ reload: reload.checked, open }));
    if (reload.checked && !document.hidden) location.reload();
  }, DATA.watch * 1000);
}
reveal();
