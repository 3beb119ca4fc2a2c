"use strict";
// Charts of `data-chart` elements and tables that sort: nothing is loaded, and all that comes from data is text.
const charts = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const [WIDEST, NARROWEST, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [920, 320, 340, 56, 16, 20, 46];
  const LEAST_LEFT = 1e-4, NEAR = 40;
  const STRETCHED = [0, 30, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99];

  function make(parent, tag, attributes, text) {
    const made = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  const decades = (percent) => -Math.log10(Math.max(1 - percent / 100, LEAST_LEFT));
  const shown = (value) => (Math.abs(value) >= 1e4 || (value && Math.abs(value) < 1e-3)
    ? value.toExponential(2) : String(Number(value.toPrecision(4))));

  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((part) => part * power).find((each) => each >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step)
      found.push(Number(tick.toPrecision(12)));
    return found;
  }

  function span(values, margin) {
    // Not Math.min(...values), whose arguments are limited.
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
    if (!(high - low > 1e-9 * Math.max(1, Math.abs(high)))) [low, high] = [low - 0.5, high + 0.5];
    return [low - margin * (high - low), high + margin * (high - low)];
  }

  function axes(svg, view, visible, stretched, width) {
    const place = stretched ? decades : (value) => value;
    const known = visible.flatMap((line) => line.points || []).filter((point) => point[1] !== null);
    const heights = known.flatMap((point) => point.slice(1).filter((value) => value !== null && value !== undefined))
      .concat(visible.filter((line) => line.level !== undefined).map((line) => line.level));
    const [left, right] = span(known.length ? known.map((point) => place(point[0])) : [0, 1], 0.03);
    const [low, high] = span(heights.length ? heights : [0, 1], 0.06);
    const x = (value) => LEFT + (width - LEFT - RIGHT) * (place(value) - left) / (right - left);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    for (const tick of ticks(low, high, 6)) {
      make(svg, "svg:line", {x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick), class: "grid"});
      make(svg, "svg:text", {x: LEFT - 7, y: y(tick) + 4, "text-anchor": "end"}, shown(tick));
    }
    const marks = stretched ? STRETCHED : ticks(left, right, width > 500 ? 8 : 4);
    for (const tick of marks.filter((each) => place(each) >= left && place(each) <= right)) {
      make(svg, "svg:line", {x1: x(tick), x2: x(tick), y1: TOP, y2: HEIGHT - BOTTOM, class: "grid"});
      make(svg, "svg:text", {x: x(tick), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle"}, shown(tick));
    }
    const below = view.x + (stretched ? ", stretched near 100 %" : "");
    make(svg, "svg:text", {x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle"}, below);
    return [x, y];
  }

  function drawLine(svg, line, x, y, points, width) {
    if (line.level !== undefined) {
      make(svg, "svg:line", {x1: LEFT, x2: width - RIGHT, y1: y(line.level), y2: y(line.level), stroke: line.color,
        "stroke-width": 1.6, "stroke-dasharray": "6 4"});
      points.push({x: LEFT + 12, y: y(line.level), line, level: true, value: line.level});
      return;
    }
    const known = line.points.filter((point) => point[1] !== null);
    const path = known.map((point, index) => `${index ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`);
    make(svg, "svg:path", {d: path.join(""), fill: "none", stroke: line.color, "stroke-width": 1.8});
    for (const point of known) {
      if (point[2] !== undefined && point[2] !== null)
        make(svg, "svg:line", {x1: x(point[0]), x2: x(point[0]), y1: y(point[2]), y2: y(point[3]), stroke: line.color,
          "stroke-opacity": 0.45});
      make(svg, "svg:circle", {cx: x(point[0]), cy: y(point[1]), r: 2.8, fill: line.color});
      points.push({x: x(point[0]), y: y(point[1]), line, value: point[1], at: point[0], low: point[2], high: point[3]});
    }
  }

  function hover(svg, view, points, width) {
    const mark = make(svg, "svg:circle", {r: 6, fill: "none", stroke: "#1b1f24", visibility: "hidden"});
    const label = make(svg, "svg:g", {visibility: "hidden", class: "tip"});
    const box = make(label, "svg:rect", {rx: 3}), text = make(label, "svg:text");
    function hide() {
      for (const each of [mark, label]) each.setAttribute("visibility", "hidden");
    }
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect(), scale = width / area.width;
      const [left, top] = [(event.clientX - area.left) * scale, (event.clientY - area.top) * scale];
      let [best, nearest] = [null, NEAR];
      for (const point of points) {
        const far = Math.hypot(point.level ? 0 : point.x - left, point.y - top);
        if (far < nearest) [best, nearest] = [point, far];
      }
      if (!best) return hide();
      const said = [best.line.label || best.line.name,
        `${view.y}: ${shown(best.value)}` + (best.low === undefined || best.low === null ? ""
          : ` (95 %: ${shown(best.low)} to ${shown(best.high)})`),
        ...(best.level ? [] : [`${view.x}: ${shown(best.at)}`])];
      text.replaceChildren(...said.map((part, index) => make(null, "svg:tspan", {x: 8, y: 17 + 16 * index}, part)));
      const wide = text.getBBox().width + 16, high = 16 * said.length + 9;
      box.setAttribute("width", wide);
      box.setAttribute("height", high);
      const beside = Math.max(2, Math.min(best.x + 12, width - wide - 2)), over = best.y > HEIGHT / 2 ? -high - 10 : 10;
      label.setAttribute("transform", `translate(${beside} ${Math.max(2, best.y + over)})`);
      mark.setAttribute("cx", best.level ? left : best.x);
      mark.setAttribute("cy", best.y);
      for (const each of [mark, label]) each.setAttribute("visibility", "visible");
    });
  }

  function button(parent, text, pressed, act) {
    const made = make(parent, "button", {type: "button", "aria-pressed": String(pressed)}, text);
    made.addEventListener("click", act);
    return made;
  }

  // `views`: name, x, y, stretch (whether its x, in per cent, may be stretched), and lines: name, color, points or level.
  function draw(host, views) {
    const state = host.state = host.state || {view: 0, hidden: new Set(), stretch: true};
    const width = Math.max(NARROWEST, Math.min(WIDEST, host.clientWidth || WIDEST));
    const again = () => draw(host, views), view = views[Math.min(state.view, views.length - 1)];
    host.replaceChildren();
    const choice = make(host, "div", {class: "choice", role: "group", "aria-label": "curves"});
    views.forEach((each, index) => button(choice, each.name, each === view, () => { state.view = index; again(); }));
    const flip = () => { state.stretch = !state.stretch; again(); };
    if (view.stretch) button(choice, "log axis near 100 %", state.stretch, flip);
    const about = {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${view.y} over ${view.x}`};
    const svg = make(host, "svg:svg", about);
    const visible = view.lines.filter((line) => !state.hidden.has(line.name)), points = [];
    const [x, y] = axes(svg, view, visible, view.stretch && state.stretch, width);
    for (const line of visible) drawLine(svg, line, x, y, points, width);
    make(svg, "svg:text", {x: LEFT, y: TOP - 8, class: "unit"}, view.y);
    hover(svg, view, points, width);
    const legend = make(host, "div", {class: "legend", role: "group", "aria-label": "methods"});
    for (const name of new Set(view.lines.map((line) => line.name))) {
      const line = view.lines.find((each) => each.name === name);
      const said = name + (line.level === undefined ? "" : " (dense, best epoch)");
      const made = button(legend, said, !state.hidden.has(name), () => {
        state.hidden[state.hidden.has(name) ? "delete" : "add"](name);
        again();
      });
      const sample = make(null, "svg:svg", {viewBox: "0 0 18 10", class: "sample"});
      make(sample, "svg:line", {x1: 0, x2: 18, y1: 5, y2: 5, stroke: line.color, "stroke-width": 3});
      made.prepend(sample);
    }
  }

  function sortable(table) {
    const heads = [...table.rows[0].cells];
    const key = (row, column) => {
      const text = row.cells[column].textContent, number = parseFloat(text.replace(/^[≥≤~]\s*/, ""));
      return Number.isNaN(number) ? text : number;
    };
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      const sort = () => {
        const down = head.getAttribute("aria-sort") === "descending", rows = [...table.rows].slice(1);
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        const missing = (value) => value === "–" || value === "";
        rows.sort((a, b) => {
          const [one, other] = [key(a, column), key(b, column)];
          if (missing(one) || missing(other)) return missing(one) - missing(other);
          const order = typeof one === "number" && typeof other === "number" ? one - other
            : String(one).localeCompare(String(other));
          return down ? order : -order;
        });
        rows.forEach((row) => row.parentNode.append(row));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
      });
    });
  }

  const drawAll = () => {
    for (const host of document.querySelectorAll("[data-chart]")) draw(host, JSON.parse(host.dataset.chart));
  };
  drawAll();
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
  for (const table of document.querySelectorAll("table.sortable")) sortable(table);
  return {draw, make};
})();
