"use strict";
(() => {
  const summary = document.getElementById("summary"), body = document.getElementById("runs");
  const chart = document.getElementById("chart"), logs = document.getElementById("logs");
  const rows = new Map(), opened = new Map();
  const make = charts.make;
  let drawn = "";

  function row(run) {
    if (!rows.has(run.key)) {
      const line = make(body, "tr"), cells = {name: make(line, "td")};
      const about = {class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100};
      const bar = make(make(line, "td"), "div", about);
      for (const name of ["percent", "epoch", "step", "metric", "sparsity", "left"]) cells[name] = make(line, "td");
      rows.set(run.key, {line, cells, bar, fill: make(bar, "div")});
      const fold = make(logs, "details"), title = make(fold, "summary"), text = make(fold, "pre");
      fold.addEventListener("toggle", () => (fold.open ? readLog(run.key) : null));
      opened.set(run.key, {fold, title, text});
    }
    return rows.get(run.key);
  }

  function show(state) {
    summary.textContent = state.summary;
    document.getElementById("metric").textContent = state.metric;
    const keys = new Set(state.runs.map((run) => run.key));
    for (const [key, {line}] of rows) {
      if (keys.has(key)) continue;
      line.remove();
      opened.get(key).fold.remove();
      rows.delete(key);
      opened.delete(key);
    }
    for (const run of state.runs) {
      const {line, cells, bar, fill} = row(run), percent = Math.floor(100 * run.fraction);
      line.className = run.state;
      for (const [name, cell] of Object.entries(cells)) cell.textContent = {percent: `${percent} %`, ...run}[name];
      bar.setAttribute("aria-valuenow", percent);
      bar.setAttribute("aria-label", run.name);
      fill.style.width = `${100 * run.fraction}%`;
      opened.get(run.key).title.textContent = `${run.name}: ${run.state}${run.message ? `, ${run.message}` : ""}`;
    }
  }

  async function read(address) {
    const answer = await fetch(address, {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status);
    return answer.json();
  }

  async function readLog(key) {
    const {text} = opened.get(key), below = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
    text.textContent = (await read(`log.json?run=${key}`)).text || "nothing yet";
    if (below) text.scrollTop = text.scrollHeight;
  }

  async function look(count) {
    try {
      show(await read("state.json"));
      for (const [key, {fold}] of opened) if (fold.open && count % 2 === 0) await readLog(key);
      if (count % 4 === 0) {
        const views = await read("curves.json"), text = JSON.stringify(views);
        if (text !== drawn && views.length) charts.draw(chart, views);
        drawn = text;
      }
      document.body.classList.remove("lost");
    } catch (error) {
      document.body.classList.add("lost");
    }
    setTimeout(() => look(count + 1), 1000);
  }

  look(0);
})();
