// What both tokens and curves are made of.
const kit = (() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8c6bb1", "#7f7f7f"];
  const ON_DARK = ["#5cb3ee", "#ff8f45", "#2ecc9b", "#e6a3cb", "#dcb53f", "#a5dcff", "#bda4e6", "#b5b5b5"];
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2", "9 2 1 2 1 2"];
  const FEW_ROWS = 30; // of a table of numbers that is printed without being asked for
  let redrawn = [];

  // Text goes in as text: whatever a document says, it is never markup.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }
  const short = (value) => (value === null || value === undefined ? "—" : String(+value.toPrecision(3)));
  const isDark = () => darkness.matches && !paper.matches;
  const colour = (number) => (isDark() ? ON_DARK : COLOURS)[number % COLOURS.length];
  const dash = (number) => DASHES[number % DASHES.length];

  function table(headers, rows) {
    const head = make("tr", {}, ...headers.map((text) => make("th", { scope: "col" }, text)));
    const body = rows.map(([first, ...rest]) =>
      make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell))));
    const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
    return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": headers.join(", ") }, whole);
  }

  // What each line of a chart stands for, with its colour, its dashes and its mark.
  function key(series) {
    return make("p", { class: "key series" }, ...series.map((name, number) => {
      const sample = Plot.plot({ width: 56, height: 14, margin: 0, axis: null, x: { domain: [0, 2] }, y: { domain: [-1, 1] },
        symbol: { domain: series }, ariaHidden: "true", style: { background: "transparent" },
        marks: [Plot.line([[0, 0], [2, 0]], { stroke: colour(number), strokeWidth: 2, strokeDasharray: dash(number) }),
          Plot.dot([[1, 0]], { stroke: colour(number), symbol: () => name, r: 3.5 })] });
      return make("span", {}, sample, name);
    }));
  }

  function span(points) {
    const [low, high] = d3.extent(points, (point) => point.y);
    if (low === undefined) return undefined;
    const room = (high - low) * 0.06 || Math.abs(high) * 0.06 || 1;
    return [low - room, high + room];
  }

  // A chart, and below it the same numbers as a table. `points` are {x, y, series, text}; `options` are x and y, what
  // the axes say; domain, of y, where charts beside it have the same; mark, a place that is marked; pick, what a click does.
  function chart(title, points, series, options) {
    const place = make("div", { class: "chart" }), about = make("div", {});
    const { mark = () => null, pick = null } = options;
    const draw = () => {
      const width = Math.max(240, Math.min(place.clientWidth || 640, 1100));
      const marks = [Plot.axisX({ label: options.x, labelAnchor: "center", labelArrow: "none", ticks: width / 90 }),
        Plot.axisY({ label: options.y, ticks: 5 }), Plot.gridY({ strokeOpacity: 0.15 })];
      series.forEach((name, number) => marks.push(Plot.lineY(points.filter((point) => point.series === name),
        { x: "x", y: "y", stroke: colour(number), strokeWidth: 2, strokeDasharray: dash(number) })));
      if (points.length <= 60 * series.length) marks.push(Plot.dot(points, { x: "x", y: "y", stroke: (d) => colour(series.indexOf(d.series)), symbol: "series", r: 3.5 }));
      if (mark() !== null) marks.push(Plot.ruleX([mark()], { stroke: "currentColor", strokeWidth: 1.5 }));
      marks.push(Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: isDark() ? "#14161a" : "#ffffff", fillOpacity: 0.9,
        title: (d) => `${d.series}\n${options.x} ${d.x}${d.text === undefined ? "" : ` “${d.text}”`}: ${short(d.y)}` })));
      const drawn = Plot.plot({ width, height: 245, marginLeft: 48, marginBottom: 42, symbol: { domain: series }, ariaLabel: title,
        x: { inset: 6 }, y: { domain: options.domain ?? span(points) },
        style: { background: "transparent", color: "currentColor", fontSize: "12px" }, marks });
      if (pick) drawn.addEventListener("click", () => drawn.value && pick(drawn.value.x));
      place.replaceChildren(drawn);
      about.replaceChildren(...(options.withKey ? [key(series)] : []));
    };
    redrawn = redrawn.filter((each) => each.place.isConnected);
    redrawn.push({ place, draw });
    const places = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
    const numbers = make("details", { class: places.length > FEW_ROWS ? "many" : "" }, make("summary", {}, "The numbers"));
    numbers.fill = () => {
      if (numbers.children.length > 1) return;
      const found = new Map(points.map((point) => [`${point.x}/${point.series}`, point.y]));
      numbers.append(table([options.x, ...series], places.map((x) => [String(x), ...series.map((name) => short(found.get(`${x}/${name}`)))])));
    };
    numbers.addEventListener("toggle", () => numbers.open && numbers.fill());
    return { figure: make("figure", {}, make("figcaption", {}, title), about, place, numbers), draw };
  }

  // What is folded is printed too, but for long tables of numbers; and folded again afterwards.
  let unfolded = [];
  function unfold() {
    for (const each of document.querySelectorAll("details:not([open]):not(.many):not(.licences)")) {
      if (each.fill) each.fill();
      each.open = true;
      unfolded.push(each);
    }
  }
  function fold() {
    unfolded.forEach((each) => { each.open = false; });
    unfolded = [];
  }

  // Calls `again` whenever what is drawn has to be drawn anew.
  function whenever(again) {
    const all = () => {
      redrawn.filter((each) => each.place.isConnected).forEach((each) => each.draw());
      again();
    };
    darkness.addEventListener("change", all);
    paper.addEventListener("change", () => { all(); if (paper.matches) unfold(); else fold(); });
    addEventListener("beforeprint", unfold);
    addEventListener("afterprint", fold);
    let width = innerWidth, timer = 0;
    addEventListener("resize", () => { if (innerWidth === width) return; width = innerWidth; clearTimeout(timer); timer = setTimeout(all, 120); });
  }

  return { data, make, short, isDark, table, key, span, chart, whenever };
})();
