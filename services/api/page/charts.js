// Small drawings in SVG. Nothing here is ever made from text: what users wrote stays text.

const SVG = "http://www.w3.org/2000/svg";

export function h(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (key === "width%") node.style.width = `${value}%`;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function s(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(share * 100).toFixed(digits)} %`);

// Interval of the shadow's share, its estimate (dot) and the active twin's (ring, with its interval as a line).
export function intervalBar({ low, high, shadow, active, lowActive = null, highActive = null, label }) {
  const top = Math.max(0.1, (high ?? 0) * 1.1, (highActive ?? 0) * 1.1, (shadow ?? 0) * 1.2, (active ?? 0) * 1.2);
  const width = 150, x = (share) => 6 + (width - 12) * Math.min(1, share / top);
  const svg = s("svg", { viewBox: `0 0 ${width} 18`, width, height: 18, role: "img", "aria-label": label });
  svg.append(s("rect", { class: "track", x: 0, y: 6, width, height: 6, rx: 3 }));
  if (low !== null && high !== null) svg.append(s("rect", { class: "between", x: x(low), y: 6, width: Math.max(2, x(high) - x(low)), height: 6, rx: 3 }));
  if (lowActive !== null && highActive !== null) svg.append(s("line", { class: "beside", x1: x(lowActive), x2: Math.max(x(highActive), x(lowActive) + 2), y1: 9, y2: 9 }));
  if (active !== null && active !== undefined) svg.append(s("circle", { class: "there", cx: x(active), cy: 9, r: 4 }));
  if (shadow !== null && shadow !== undefined) svg.append(s("circle", { class: "here", cx: x(shadow), cy: 9, r: 4.5 }));
  return svg;
}

const FLOOR = 0.01, ROOF = 1e6;
const level = (e) => Math.log10(Math.min(ROOF, Math.max(FLOOR, e)));
const power = (value) => (value >= 1e4 || value < 0.01 ? value.toExponential(0).replace("e+", "e") : String(Number(value.toPrecision(2))));

// e-values over time on a logarithmic scale with their threshold.
export function evidenceChart(points, names, { threshold, label, titles }) {
  const width = 520, height = 250, left = 46, right = 12, top = 12, bottom = 26;
  const first = points[0].at, last = points[points.length - 1].at;
  const values = points.flatMap((point) => names.map((name) => point.gates[name]?.e)).filter((e) => typeof e === "number");
  const lowest = Math.floor(Math.min(-1, ...values.map(level))), highest = Math.ceil(Math.max(2, ...values.map(level)));
  const x = (at) => left + (width - left - right) * (last === first ? 1 : (at - first) / (last - first));
  const y = (e) => top + (height - top - bottom) * (1 - (level(e) - lowest) / (highest - lowest));
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width: "100%", role: "img", "aria-label": label });
  for (let grade = lowest; grade <= highest; grade += highest - lowest > 5 ? 2 : 1) {
    const at = y(10 ** grade);
    svg.append(s("line", { class: "axis", x1: left, x2: width - right, y1: at, y2: at }));
    svg.append(s("text", { x: left - 7, y: at + 4, "text-anchor": "end" }, power(10 ** grade)));
  }
  svg.append(s("line", { class: "limit", x1: left, x2: width - right, y1: y(threshold), y2: y(threshold) }));
  svg.append(s("text", { x: width - right, y: y(threshold) - 5, "text-anchor": "end" }, `enough: ${threshold}`));
  svg.append(s("text", { x: left, y: height - 7 }, clock(first)), s("text", { x: width - right, y: height - 7, "text-anchor": "end" }, clock(last)));
  names.forEach((name, number) => {
    const known = points.filter((point) => typeof point.gates[name]?.e === "number");
    if (!known.length) return;
    const path = known.map((point, index) => `${index ? "L" : "M"}${x(point.at).toFixed(1)} ${y(point.gates[name].e).toFixed(1)}`).join("");
    const end = known[known.length - 1];
    svg.append(s("path", { class: `series c${number % 8}`, d: path }));
    svg.append(s("circle", { class: `series c${number % 8}`, cx: x(end.at), cy: y(end.gates[name].e), r: 3.5 }));
  });
  const legend = h("div", { class: "legend" }, names.map((name, number) => h("span", {}, h("i", { class: `c${number % 8}` }), titles[name] ?? name)));
  return h("figure", { class: "figure" }, svg, legend);
}

export const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
