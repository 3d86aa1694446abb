// What the page's script reads, and figures in words. Texts of runs are only ever set as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const live = document.getElementById("live");
const night = matchMedia("(prefers-color-scheme: dark)");
const LIGHT = ["#0060a8", "#c24e00", "#00795a", "#a83279", "#8a6500", "#5b50c0", "#4d5358"];
const DARK = ["#5cb3f0", "#ff9152", "#2fcf9f", "#ef9ccc", "#e8b93c", "#b1a6ff", "#c3c9cf"];
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const POINTS = 200;
let printing = false;

document.documentElement.classList.add("scripted");

const colour = (n) => (night.matches && !printing ? DARK : LIGHT)[n % LIGHT.length];
const dash = (n) => DASHES[Math.floor(n / LIGHT.length) % DASHES.length];
const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

const short = (value) => {
  if (value == null || !isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e15) return value.toExponential(2);
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= unit) return +(value / unit).toPrecision(4) + letter;
  return size && size < 1e-3 ? value.toExponential(1) : String(+value.toPrecision(4));
};
const exact = (value) =>
  value == null || !isFinite(value) ? "–" : Math.abs(value) >= 1e4 && Math.abs(value) < 1e15
    ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
const duration = (seconds) =>
  seconds < 120 ? `${+seconds.toPrecision(3)} s` : seconds < 7200 ? `${+(seconds / 60).toPrecision(3)} min`
    : `${+(seconds / 3600).toPrecision(3)} h`;

// Numbers of runs, unpacked when they are asked for.

const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)).buffer);
const unpacked = new Map();
const runOf = (id) => {
  if (!unpacked.has(id)) {
    const packed = DATA.runs[id];
    const steps = Array.from(unpack(packed.steps, Float64Array));
    const seconds = Array.from(unpack(packed.seconds, Float32Array));
    unpacked.set(id, { packed, x: { step: steps, seconds }, metrics: new Map() });
  }
  return unpacked.get(id);
};
const metricsOf = (id) => Object.keys(DATA.runs[id].metrics);
const curveOf = (id, metric, axis) => {
  const run = runOf(id);
  if (!Object.hasOwn(run.packed.metrics, metric)) return null;
  const [places, packedValues] = run.packed.metrics[metric];
  const rows = Array.from(unpack(places, run.packed.wide ? Uint32Array : Uint16Array));
  const values = Array.from(unpack(packedValues, Float32Array));
  const x = [], y = [];
  rows.forEach((row, n) => {
    const at = run.x[axis][row];
    if (isFinite(at) && at === x[x.length - 1]) y[y.length - 1] = values[n];  // two rows of one step: the later
    else if (isFinite(at) && (!x.length || at > x[x.length - 1])) { x.push(at); y.push(values[n]); }
  });
  return x.length ? [x, y] : null;
};

const valueAt = ([x, y], at) => {
  if (!x.length || at < x[0] || at > x[x.length - 1]) return null;
  let low = 0, high = x.length - 1;
  while (high - low > 1) { const middle = (low + high) >> 1; if (x[middle] <= at) low = middle; else high = middle; }
  return x[high] === x[low] ? y[high] : y[low] + (y[high] - y[low]) * (at - x[low]) / (x[high] - x[low]);
};
const smooth = ([x, y], width) => {
  if (width < 2 || y.length < 3) return [x, y];
  const half = width >> 1;
  const sums = [0];
  for (const value of y) sums.push(sums[sums.length - 1] + value);
  return [x, y.map((_, n) => {
    const reach = Math.min(half, n, y.length - 1 - n);  // the same on both sides, so that ends are not bent
    return (sums[n + reach + 1] - sums[n - reach]) / (2 * reach + 1);
  })];
};
const meanOf = (curves) => {
  const begin = Math.max(...curves.map(([x]) => x[0])), end = Math.min(...curves.map(([x]) => x[x.length - 1]));
  const count = begin < end ? POINTS : 1;
  const x = Array.from({ length: count }, (_, n) => count === 1 ? end : begin + (end - begin) * n / (count - 1));
  const last = (curve, at) => valueAt(curve, at) ?? curve[1][at < curve[0][0] ? 0 : curve[1].length - 1];
  return [x, x.map((at) => curves.reduce((sum, curve) => sum + last(curve, at), 0) / curves.length)];
};
