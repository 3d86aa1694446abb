// Charts.

const drawn = new Set();
const plot = (place, lines, bands, { height, label, axisLabel, range, seconds, sync, onMove, onZoom }) => {
  const tables = lines.map(({ curve }) => curve);
  const data = tables.length ? uPlot.join(tables) : [[], []];
  const text = variable("--quiet"), rule = variable("--rule");
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: text, font, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1, size: 4 } };
  const width = Math.max(160, place.clientWidth);
  const options = {
    width, height, padding: [8, 10, 0, 0],
    legend: { show: false },
    scales: { x: { time: false }, y: range ? { range } : {} },
    cursor: { drag: { x: true, y: false, setScale: true }, points: { show: false }, y: false, ...(sync ? { sync: { key: sync } } : {}) },
    axes: [
      { ...axis, size: 26, space: 80, values: (_, splits) => splits.map(seconds ? duration : short), ...(axisLabel ? { label: axisLabel, labelFont: font, labelSize: 18 } : {}) },
      { ...axis, size: 52, space: 28, values: (_, splits) => splits.map(short) },
    ],
    series: [{}, ...(lines.length ? lines : [{}]).map((line) => ({
      stroke: line.stroke, width: line.width ?? 1.5, dash: line.dash, alpha: line.alpha ?? 1,
      points: { show: Boolean(line.curve && line.curve[0].length === 1), size: line.small ? 6 : 9, fill: line.stroke },
    }))],
    bands: bands.map(([high, low, fill]) => ({ series: [high + 1, low + 1], fill })),
    hooks: {
      setCursor: [(u) => onMove && onMove(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)],
      setScale: [(u, key) => key === "x" && onZoom && onZoom(u)],
    },
  };
  const chart = new uPlot(options, data, place);
  chart.root.setAttribute("aria-hidden", "true");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  return chart;
};

const zoom = (u, factor) => {
  const { min, max } = u.scales.x;
  const at = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : (min + max) / 2;
  const all = u.data[0], begin = Math.max(all[0], at - (at - min) * factor), end = Math.min(all[all.length - 1], at + (max - at) * factor);
  if (end > begin) u.setScale("x", { min: begin, max: end });
};
const showAll = (u) => u.data[0].length > 1 && u.setScale("x", { min: u.data[0][0], max: u.data[0][u.data[0].length - 1] });
const byKeyboard = (place, chart, told) => {
  place.tabIndex = 0;
  place.addEventListener("keydown", (event) => {
    const u = chart(), size = u.over.clientWidth;
    const left = u.cursor.left >= 0 ? u.cursor.left : size / 2;
    const move = { ArrowLeft: -size / 40, ArrowRight: size / 40, Home: -size, End: size }[event.key];
    if (move !== undefined) u.setCursor({ left: Math.min(size - 1, Math.max(0, left + move)), top: 10 });
    else if (event.key === "+" || event.key === "=") zoom(u, 0.5);
    else if (event.key === "-") zoom(u, 2);
    else if (event.key === "0") showAll(u);
    else return;
    event.preventDefault();
    live.textContent = told();
  });
};

// A chart of groups: learning curves, where metric, axis, seeds and smoothing can be chosen, or profiles.

const groupsChart = (figure, name, spec) => {
  const curves = spec.kind === "curves";
  const holder = figure.querySelector("[data-place]");
  const state = { axis: "step", metric: spec.metric, seeds: false, window: 1, off: new Set() };
  const id = (part) => `${name}-${part}`;
  const place = element("div", { className: "canvas" });
  const readout = element("p", { className: "readout quiet" });
  const controls = element("div", { className: "controls" });
  const legend = element("fieldset", { className: "legend" }, element("legend", { textContent: "Groups", className: "hidden" }));
  const outputs = [];
  let shown = [], chart = null;

  spec.groups.forEach((group, n) => {
    const box = element("input", { type: "checkbox", checked: true });
    const output = element("output", { className: "value" });
    const swatch = element("span", { className: "swatch" });
    swatch.style.borderTopStyle = group.colour >= LIGHT.length ? "dashed" : "solid";
    box.addEventListener("change", () => { if (box.checked) state.off.delete(n); else state.off.add(n); draw(); });
    legend.append(element("label", {}, box, swatch, element("span", { textContent: group.label }), output));
    outputs.push({ output, swatch });
  });

  const choice = (label, control) => controls.append(element("label", {}, element("span", { textContent: label }), control));
  const select = (options, on) => {
    const made = element("select", {}, ...options.map(([value, text]) => element("option", { value, textContent: text })));
    made.addEventListener("change", () => { on(made.value); draw(); });
    return made;
  };
  if (curves) {
    const others = [...new Set(spec.groups.flatMap((group) => group.runs.flatMap(([, run]) => metricsOf(run))))].sort();
    choice("Metric", select([[spec.metric, spec.metric], ...others.filter((one) => one !== spec.metric).map((one) => [one, one])], (value) => { state.metric = value; }));
    choice("Over", select([["step", "environment steps"], ["seconds", "wall time"]], (value) => { state.axis = value; }));
    choice("Smoothing", select([["1", "none"], ["5", "5 points"], ["15", "15 points"], ["51", "51 points"]], (value) => { state.window = Number(value); }));
    const seeds = element("input", { type: "checkbox" });
    seeds.addEventListener("change", () => { state.seeds = seeds.checked; draw(); });
    controls.append(element("label", { className: "box" }, seeds, element("span", { textContent: "each seed" })));
  }
  const button = (text, label, act) => {
    const made = element("button", { type: "button", textContent: text });
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  };
  controls.append(element("span", { className: "zoom" },
    button("+", "Zoom in", () => zoom(chart, 0.5)), button("−", "Zoom out", () => zoom(chart, 2)), button("All", "Show all", () => showAll(chart))));
  holder.append(controls, legend, place, readout);

  const lineOf = (group) => {
    if (!curves) return { mean: [group.band[0], group.band[1]], low: group.band[2], high: group.band[3] };
    const given = state.metric === spec.metric ? group.bands[state.axis] : null;
    if (given) return { mean: [given[0], given[1]], low: given[2], high: given[3] };
    const members = group.runs.map(([, run]) => curveOf(run, state.metric, state.axis)).filter(Boolean);
    return members.length ? { mean: meanOf(members) } : null;
  };
  const stated = () => {
    if (!curves) return "";
    const intervals = state.metric === spec.metric ? "Bands: 95 % intervals over seeds." : "Means over seeds, without intervals.";
    const smoothing = state.window > 1 ? `Smoothing: running mean over ${state.window} neighbouring points of each line and band.` : "Smoothing: none.";
    return `${state.metric}. ${intervals} ${smoothing}`;
  };
  const told = (at) => {
    outputs.forEach(({ output }, n) => { output.textContent = ""; });
    if (at === null) { readout.textContent = stated(); return ""; }
    const where = !curves ? `score ${exact(at)}` : state.axis === "step" ? `${exact(Math.round(at))} steps` : duration(at);
    const words = shown.map(({ n, mean, low, high }) => {
      const value = valueAt(mean, at);
      if (value === null) return null;
      const ends = low ? ` [${exact(valueAt([mean[0], low], at))}, ${exact(valueAt([mean[0], high], at))}]` : "";
      outputs[n].output.textContent = exact(value) + ends;
      return `${spec.groups[n].label} ${exact(value)}`;
    });
    readout.textContent = `At ${where}. ${stated()}`;
    return `At ${where}: ${words.filter(Boolean).join(", ")}`;
  };
  let last = "";
  const draw = () => {
    chart?.destroy();
    shown = [];
    const lines = [], bands = [];
    spec.groups.forEach((group, n) => {
      const stroke = colour(group.colour);
      outputs[n].swatch.style.borderTopColor = stroke;
      if (state.off.has(n)) return;
      const line = lineOf(group);
      if (!line) return;
      const curve = smooth(line.mean, state.window), [x] = curve;
      const [low, high] = [line.low, line.high].map((side) => side && smooth([x, side], state.window)[1]);
      if (state.seeds && curves)
        for (const [, run] of group.runs) {
          const own = curveOf(run, state.metric, state.axis);
          if (own) lines.push({ curve: smooth(own, state.window), stroke, width: 1, alpha: 0.55, small: true });
        }
      if (high && group.runs?.length !== 1) {
        lines.push({ curve: [x, high], stroke: "transparent", width: 0 }, { curve: [x, low], stroke: "transparent", width: 0 });
        bands.push([lines.length - 2, lines.length - 1, stroke + "2b"]);
      }
      lines.push({ curve, stroke, width: 2, dash: dash(group.colour) });
      shown.push({ n, mean: curve, low, high });
    });
    const ends = shown.map(({ n, mean }) => `${spec.groups[n].label} ends at ${exact(mean[1][mean[1].length - 1])}`);
    const axisLabel = !curves ? "score" : state.axis === "step" ? "environment steps" : "wall time";
    chart = plot(place, lines, bands, {
      height: 320, axisLabel, seconds: curves && state.axis === "seconds", range: curves ? null : [0, 1.02],
      label: `${figure.querySelector("strong").textContent}: ${curves ? state.metric : "share of runs above a score"} over ${axisLabel}. ${curves ? ends.join("; ") : ""}`,
      onMove: (at) => { last = told(at); },
    });
    told(null);
  };
  draw();
  byKeyboard(place, () => chart, () => last);
  drawn.add({ place, draw, size: () => chart.setSize({ width: place.clientWidth, height: 320 }) });
};
