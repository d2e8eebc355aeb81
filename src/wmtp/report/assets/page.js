(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const darkness = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  let redrawn = [];
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8c6bb1", "#7f7f7f"];
  const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 2", "9 2 1 2 1 2"];

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
  const names = data.runs.map((run) => run.name);

  function table(headers, rows) {
    const head = make("tr", {}, ...headers.map((text) => make("th", { scope: "col" }, text)));
    const body = rows.map(([first, ...rest]) =>
      make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell))));
    const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
    return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": headers.join(", ") }, whole);
  }

  // A chart, and below it the same numbers as a table. `points` are {x, y, series}.
  function chart(title, points, series, labels, mark = null) {
    const place = make("div", { class: "chart" });
    const draw = () => {
      const width = Math.max(260, Math.min(place.clientWidth || 640, 1100));
      const colour = (name) => COLOURS[series.indexOf(name) % COLOURS.length];
      const marks = [Plot.axisX({ label: labels.x, ticks: width / 90 }), Plot.axisY({ label: labels.y, ticks: 5 }), Plot.gridY({ strokeOpacity: 0.15 })];
      series.forEach((name, number) => {
        const own = points.filter((point) => point.series === name);
        marks.push(Plot.lineY(own, { x: "x", y: "y", stroke: colour(name), strokeWidth: 2, strokeDasharray: DASHES[number % DASHES.length] }));
      });
      const few = points.length <= 60 * series.length;
      if (few) marks.push(Plot.dot(points, { x: "x", y: "y", stroke: (d) => colour(d.series), symbol: "series", r: 3.5 }));
      if (mark !== null && mark() !== null) marks.push(Plot.ruleX([mark()], { stroke: "currentColor", strokeWidth: 1.5 }));
      marks.push(Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: isDark() ? "#14161a" : "#ffffff",
        title: (d) => `${d.series}\n${labels.x} ${d.x}: ${short(d.y)}` })));
      const drawn = Plot.plot({ width, height: 230, marginLeft: 48, symbol: { domain: series }, ariaLabel: title,
        style: { background: "transparent", color: "currentColor", fontSize: "12px" }, marks });
      place.replaceChildren(drawn);
    };
    redrawn = redrawn.filter((each) => each.place.isConnected);
    redrawn.push({ place, draw });
    const numbers = make("details", {}, make("summary", {}, "The numbers"));
    numbers.addEventListener("toggle", () => {
      if (!numbers.open || numbers.children.length > 1) return;
      const places = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
      const found = new Map(points.map((point) => [`${point.x}/${point.series}`, point.y]));
      numbers.append(table([labels.x, ...series], places.map((x) => [String(x), ...series.map((name) => short(found.get(`${x}/${name}`)))])));
    });
    const figure = make("figure", {}, make("figcaption", {}, title), place, numbers);
    return { figure, draw };
  }

  function runKey() {
    return make("p", { class: "key" }, ...names.map((name, number) => {
      const sample = Plot.plot({ width: 44, height: 14, margin: 0, axis: null, x: { domain: [0, 2] }, y: { domain: [-1, 1] }, symbol: { domain: names }, ariaHidden: "true",
        style: { background: "transparent" },
        marks: [Plot.lineY([[0, 0], [2, 0]], { stroke: COLOURS[number % COLOURS.length], strokeWidth: 2, strokeDasharray: DASHES[number % DASHES.length] }),
          Plot.dot([[1, 0]], { stroke: COLOURS[number % COLOURS.length], symbol: () => name, r: 3.5 })] });
      sample.style.display = "inline-block";
      return make("span", { style: "display:inline-flex;align-items:center;gap:.3rem;margin-right:.8rem" }, sample, name);
    }));
  }

  function curve(name) {
    return data.runs.flatMap((run) => run.log.filter((entry) => typeof entry[name] === "number")
      .map((entry) => ({ x: entry.step, y: entry[name], series: run.name })));
  }

  function curves() {
    const found = new Set(data.runs.flatMap((run) => run.log.flatMap((entry) => Object.keys(entry))));
    const of = (prefix) => [...found].filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
      .sort((a, b) => a.slice(prefix.length) - b.slice(prefix.length));
    const kinds = [["Held-out cross-entropy", "nats", of("eval_ce_")], ["Training cross-entropy", "nats", of("ce_")],
      ["Held-out top-1 accuracy", "share", of("eval_top1_")], ["Learning rate and gradient", "", ["learning_rate", "grad_norm", "loss"].filter((name) => found.has(name))]]
      .filter(([, , metrics]) => metrics.length);
    const place = make("div", { class: "charts" });
    const select = make("select", { id: "curves-what" }, ...kinds.map(([title], number) => make("option", { value: number }, title)));
    const show = () => {
      const [title, unit, metrics] = kinds[select.value];
      const drawn = metrics.map((name) => {
        const head = /_(\d+)$/.exec(name);
        return chart(head ? `${title}, head ${head[1]}` : name.replace("_", " "), curve(name), names, { x: "step", y: unit });
      });
      place.replaceChildren(...drawn.map((each) => each.figure));
      drawn.forEach((each) => each.draw());
    };
    select.addEventListener("change", show);
    const target = document.getElementById("curves");
    if (!kinds.length) return target.append(make("p", {}, "The runs have logged no curve."));
    target.append(make("div", { class: "controls" }, make("label", {}, "Show ", select)), runKey(), place);
    show();
  }

  function weightCurves() {
    const what = { weight_share_kept: "Pairs with a weight above 0 (share)", weight_effective_share: "Effective sample size (share of pairs)",
      weight_entropy: "Entropy of the weights (1: all equal)", weight_max: "Largest weight" };
    const drawn = Object.entries(what).filter(([name]) => curve(name).length)
      .map(([name, title]) => chart(title, curve(name), names, { x: "step", y: "" }));
    const target = document.getElementById("weights");
    target.append(drawn.length ? make("div", { class: "charts" }, ...drawn.map((each) => each.figure)) : make("p", {}, "The runs have logged no weights."));
    drawn.forEach((each) => each.draw());
  }

  // The X-ray of one run.
  class Pane {
    constructor(number, first) {
      this.number = number;
      this.run = first; this.document = 0; this.head = 0; this.step = -1; this.chosen = null; this.numbers = false; this.from = "zero"; this.along = null;
      this.element = make("section", { class: "pane", "aria-label": `X-ray ${number + 1}` });
      this.build();
    }
    get xray() { return runsWithXRay[this.run].xray; }
    get shown() { return this.xray.documents[this.document]; }
    get at() { return this.shown.steps[this.step]; }

    build() {
      const xray = this.xray, id = (what) => `pane-${this.number}-${what}`;
      this.step = xray.steps.length - 1; this.document = 0; this.chosen = null;
      this.head = Math.min(this.head, this.at.weights.length - 1);
      const choice = (what, options, value, change) => make("select", { id: id(what), onchange: (event) => change(event.target.value) },
        ...options.map(([key, text]) => make("option", { value: key, selected: String(key) === String(value) }, text)));
      const runs = choice("run", runsWithXRay.map((run, key) => [key, run.name]), this.run, (value) => { this.run = +value; this.along = null; this.build(); document.getElementById(id("run")).focus(); });
      const documents = choice("document", xray.documents.map((each, key) => [key, `${key + 1}: ${each.where.split("/").pop() || "document"}`]), 0, (value) => { this.document = +value; this.chosen = null; this.update(); });
      const move = (by) => () => { documents.value = String((this.document + by + xray.documents.length) % xray.documents.length); documents.dispatchEvent(new Event("change")); };
      const heads = make("fieldset", {}, make("legend", {}, "Head"), ...this.at.weights.map((_, head) =>
        make("label", {}, make("input", { type: "radio", name: id("head"), value: head, checked: head === this.head, onchange: () => { this.head = head; this.update(); } }), String(head + 1))));
      this.stepName = make("output", {});
      const slider = make("input", { type: "range", id: id("step"), min: 0, max: xray.steps.length - 1, step: 1, value: this.step, oninput: (event) => { this.step = +event.target.value; this.update(); } });
      const scale = choice("scale", [["zero", "from 0 to the largest weight"], ["least", "from the least to the largest weight"]], this.from, (value) => { this.from = value; this.update(); });
      const numbers = make("input", { type: "checkbox", checked: this.numbers, onchange: (event) => { this.numbers = event.target.checked; this.update(); } });
      this.key = make("div", { class: "key" });
      this.text = make("div", { class: "text", role: "group", "aria-label": "Tokens: arrow keys go from one to the next", onkeydown: (event) => this.keys(event) });
      this.about = make("div", { class: "about", "aria-live": "polite" });
      this.line = make("div", {});
      this.heads = make("div", {});
      this.note = make("p", { class: "soft" });
      const run = runsWithXRay[this.run];
      this.element.replaceChildren(make("h3", {}, `${run.name} (${run.algorithm})`),
        make("div", { class: "controls" }, make("label", {}, "Run ", runs), make("label", {}, "Text ", documents),
          make("button", { type: "button", onclick: move(-1), "aria-label": "Text before" }, "‹"), make("button", { type: "button", onclick: move(1), "aria-label": "Next text" }, "›"),
          heads, ...(xray.steps.length > 1 ? [make("label", {}, "After step ", slider, this.stepName)] : [make("span", {}, `After step ${xray.steps[0]}`)]),
          make("label", {}, "Shade ", scale), make("label", {}, numbers, "numbers")),
        this.key, this.text, this.about, this.line, make("h4", {}, "Which tokens, over all texts"), this.ranked(), this.heads,
        make("p", { class: "soft" }, `From ${xray.rows} rows of ${xray.source}; weighed in batches of ${xray.batch} rows, as in training.`));
      this.update();
    }

    range() {
      const all = this.xray.documents.flatMap((each) => each.steps.flatMap((step) => step.weights.flat())).filter((weight) => weight !== null);
      const largest = d3.max(all) ?? 1;
      return this.from === "zero" ? [0, Math.max(largest, 2)] : [d3.min(all) ?? 0, largest];
    }

    dress(element, weight, [low, high]) {
      const share = high > low ? Math.max(0, Math.min(1, (weight - low) / (high - low))) : 0.5;
      const back = (isDark() ? d3.interpolateLab("#1e2228", "#9fd0ff") : d3.interpolateLab("#f4f6f9", "#083a85"))(share);
      element.style.backgroundColor = back;
      element.style.color = d3.lab(back).l > 49.5 ? "#000000" : "#ffffff";
      element.style.borderBottomWidth = `${Math.round(share * 4)}px`;
    }

    update() {
      const { xray, shown, at } = this, weights = at.weights[this.head], range = this.range();
      this.stepName.textContent = String(xray.steps[this.step]);
      this.tokens = shown.text.map((text, place) => {
        const weight = weights[place];
        // A mark stands where an end of a line or a lone blank would not be seen.
        const seen = text.replace(/\n/g, "⏎\n").replace(/^ +$/, (blank) => "·".repeat(blank.length)).replace(/\t/g, "⇥\t");
        const token = make("span", { class: "token", role: "button", tabindex: place === (this.chosen ?? 0) ? "0" : "-1", "data-place": place,
          "aria-label": `${text.trim() || "blank"}, ${weight === null ? "not learned" : `weight ${short(weight)}`}`,
          onfocus: () => this.choose(place), onclick: () => { this.choose(place); token.focus(); }, onpointerenter: (event) => { if (event.pointerType === "mouse") this.tell(place); } }, seen);
        if (weight === null) token.classList.add("unlearned"); else this.dress(token, weight, range);
        if (this.numbers && weight !== null) token.append(make("sub", { "aria-hidden": "true" }, short(weight)));
        return token;
      });
      this.text.replaceChildren(...this.tokens);
      if (shown.text.length < shown.tokens) this.text.append(make("span", { class: "soft" }, ` … ${shown.tokens - shown.text.length} more tokens`));
      const steps = d3.range(5).map((part) => range[0] + (range[1] - range[0]) * part / 4);
      this.key.replaceChildren("Weight: ", ...steps.map((weight) => { const sample = make("span", { class: "token" }, short(weight)); this.dress(sample, weight, range); return sample; }),
        make("span", {}, " thicker line below: more weight; 1 is the mean. "), make("span", { class: "token unlearned" }, "not learned"));
      this.tell(this.chosen);
      this.drawAlong();
      const statistics = xray.statistics[this.step];
      this.heads.replaceChildren(make("h4", {}, "Weights by head, over all texts"), table(["head", "mean", "largest", "above 0", "effective share"],
        statistics.map((head, number) => [String(number + 1), short(head.mean), short(head.max), short(head.share_kept), short(head.effective_share)])));
    }

    keys(event) {
      const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
      const last = this.tokens.length - 1;
      const place = event.key === "Home" ? 0 : event.key === "End" ? last : by === undefined ? null : Math.max(0, Math.min(last, (this.chosen ?? 0) + by));
      if (place === null) return;
      event.preventDefault();
      this.tokens[place].focus();
    }

    choose(place) {
      this.tokens.forEach((token, number) => { token.tabIndex = number === place ? 0 : -1; token.classList.toggle("chosen", number === place); });
      this.chosen = place;
      this.tell(place);
      if (this.redrawLine) this.redrawLine();
    }

    tell(place) {
      if (place === null) { this.about.replaceChildren(make("p", { class: "soft" }, "Point at a token, tap it, or go to it with Tab and the arrow keys: its losses and what lies behind its weight stand here.")); return; }
      const { xray, shown, at } = this, rows = [];
      if (at.weights.every((head) => head[place] === null)) rows.push(["", "not learned: nothing of this text predicts it, or it is a prompt"]);
      for (const [name, values] of Object.entries(shown.scores)) rows.push([xray.labels[name] ?? name, short(Array.isArray(values) ? values[place] : values)]);
      for (const [name, values] of Object.entries(at.figures)) rows.push([name, short(values[place])]);
      const heads = at.weights.map((weights, head) => [String(head + 1), short(weights[place]), short(at.ce[head][place])]);
      const over = xray.steps.length > 1 ? [make("p", {}, `Weight by head ${this.head + 1} after steps ${xray.steps.map((step, number) => `${step}: ${short(shown.steps[number].weights[this.head][place])}`).join(", ")}`)] : [];
      this.about.replaceChildren(make("p", {}, make("code", {}, shown.text[place]), ` token ${place + 1} of ${shown.tokens}`),
        table(["head", "weight", "policy loss (nats)"], heads), ...(rows.length ? [table(["this token", ""], rows)] : []), ...over);
    }

    drawAlong() {
      const { xray, shown, at } = this;
      const groups = {};
      if (Object.keys(at.figures).length) groups["what the algorithm says"] = at.figures;
      const losses = { [`policy, head ${this.head + 1}`]: at.ce[this.head] };
      for (const [name, values] of Object.entries(shown.scores)) if (Array.isArray(values)) losses[xray.labels[name] ?? name] = values;
      groups["losses (nats)"] = losses;
      groups.weight = { [`head ${this.head + 1}`]: at.weights[this.head] };
      const wanted = this.along in groups ? this.along : Object.keys(groups)[0];
      const select = make("select", { id: `pane-${this.number}-along`, onchange: (event) => { this.along = event.target.value; this.drawAlong(); document.getElementById(`pane-${this.number}-along`).focus(); } },
        ...Object.keys(groups).map((name) => make("option", { value: name, selected: name === wanted }, name)));
      const series = Object.keys(groups[wanted]);
      const points = series.flatMap((name) => groups[wanted][name].map((y, place) => ({ x: place + 1, y, series: name })).filter((point) => point.y !== null));
      const { figure, draw } = chart(`Along the text: ${wanted}`, points, series, { x: "token", y: "" }, () => (this.chosen === null ? null : this.chosen + 1));
      const key = make("p", { class: "key" }, ...series.map((name, number) => make("span", { style: `border-bottom: 3px ${["solid", "dashed", "dotted", "double"][number % 4]} ${COLOURS[number % COLOURS.length]}; margin-right: .8rem` }, name)));
      this.redrawLine = draw;
      this.line.replaceChildren(make("div", { class: "controls" }, make("label", {}, "Curve along the text ", select)), key, figure);
      draw();
    }

    ranked() {
      const list = (title, rows) => make("div", {}, make("h5", {}, title), table(["token", "mean weight", "times"],
        rows.map(([text, count, mean]) => [make("code", {}, text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +$/, (blank) => "·".repeat(blank.length))), short(mean), String(count)])));
      const { most, least } = this.xray.ranked;
      if (!most.length || most[0][2] === least[0][2]) return make("p", {}, "All tokens weigh the same.");
      return make("div", { class: "ranked" }, list("Most weight", most), list("Least weight", least));
    }
  }

  const runsWithXRay = data.runs.filter((run) => run.xray && run.xray.documents.length);
  const panes = [];
  function xrays() {
    const target = document.getElementById("xray");
    if (!target) return;
    const place = make("div", { class: "panes" });
    const add = (first) => { const pane = new Pane(panes.length, first); panes.push(pane); place.append(pane.element); pane.update(); };
    for (let number = 0; number < Math.min(2, runsWithXRay.length); number += 1) add(number);
    const more = make("button", { type: "button", onclick: () => add(Math.min(panes.length, runsWithXRay.length - 1)) }, "Another one beside these");
    target.append(place, ...(runsWithXRay.length ? [make("p", {}, more)] : []));
  }

  curves();
  weightCurves();
  xrays();
  const again = () => {
    redrawn.filter((each) => each.place.isConnected).forEach((each) => each.draw());
    panes.forEach((pane) => pane.update());
  };
  darkness.addEventListener("change", again);
  paper.addEventListener("change", again);
  let width = innerWidth, timer = 0;
  addEventListener("resize", () => { if (innerWidth === width) return; width = innerWidth; clearTimeout(timer); timer = setTimeout(again, 120); });
})();
