// Texts of runs with the weight of each token, run beside run. Returns what draws them anew.
const tokens = (target) => {
  "use strict";
  const { data, make, short, isDark, table, chart } = kit;
  const runs = data.runs.filter((run) => run.xray && run.xray.documents.length);
  const weightsOf = (run) => run.xray.documents.flatMap((each) => each.steps.flatMap((step) => step.weights.flat())).filter((weight) => weight !== null);
  const LARGEST = Math.max(2, d3.max(runs.flatMap(weightsOf)) ?? 1);
  let panes = [], opened = 0, scale = "common";

  // A mark stands where an end of a line or a lone blank would not be seen.
  function seen(text) {
    const blanks = text.trim() ? text : text.replace(/ /g, "·");
    return blanks.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  }
  // The same with the ends of lines and tabs themselves, as the text has them.
  const inText = (text) => seen(text).replace(/⇥/g, "⇥\t").replace(/⏎/g, "⏎\n");
  const fileName = (where) => where.split("/").pop() || "text";
  const begin = (text) => [...text.slice(0, 24).join("").replace(/\s+/g, " ").trim()].slice(0, 24).join("");

  class Pane {
    constructor(run) {
      this.number = opened;
      opened += 1;
      Object.assign(this, { run, document: 0, head: 0, step: -1, chosen: null, numbers: false, along: null });
      this.element = make("section", { class: "pane" });
      this.build();
    }
    get xray() { return runs[this.run].xray; }
    get shown() { return this.xray.documents[this.document]; }
    get at() { return this.shown.steps[this.step]; }
    get prior() { const { prior } = runs[this.run]; return new Set(prior).size > 1 ? prior : null; }
    id(what) { return `pane-${this.number}-${what}`; }

    choice(what, options, value, change) {
      return make("select", { id: this.id(what), onchange: (event) => change(event.target.value) },
        ...options.map(([key, text]) => make("option", { value: key, selected: String(key) === String(value) }, text)));
    }

    build() {
      const { xray } = this, run = runs[this.run];
      this.step = xray.steps.length - 1; this.document = 0; this.chosen = null;
      this.head = Math.min(this.head, this.at.weights.length - 1);
      const choice = this.choice("run", runs.map((each, key) => [key, each.name]), this.run, (value) => { this.run = +value; this.along = null; this.build(); document.getElementById(this.id("run")).focus(); });
      const documents = this.choice("document", xray.documents.map((each, key) => [key, `${key + 1}: ${fileName(each.where)}: ${begin(each.text)}…`]), 0, (value) => { this.document = +value; this.chosen = null; this.update(); });
      const move = (by) => () => { documents.value = String((this.document + by + xray.documents.length) % xray.documents.length); documents.dispatchEvent(new Event("change")); };
      const heads = make("fieldset", {}, make("legend", {}, "Head"), ...this.at.weights.map((_, head) =>
        make("label", {}, make("input", { type: "radio", name: this.id("head"), value: head, checked: head === this.head, onchange: () => { this.head = head; this.update(); } }), String(head + 1))));
      this.stepName = make("output", {});
      const slider = make("input", { type: "range", id: this.id("step"), min: 0, max: xray.steps.length - 1, step: 1, value: this.step, oninput: (event) => { this.step = +event.target.value; this.update(); } });
      const numbers = make("input", { type: "checkbox", checked: this.numbers, onchange: (event) => { this.numbers = event.target.checked; this.update(); } });
      this.closer = make("button", { type: "button", id: this.id("close"), onclick: () => close(this) }, "Close");
      this.key = make("div", { class: "key" });
      this.state = make("p", { class: "state" });
      this.text = make("div", { class: "text", role: "group", "aria-label": "Tokens: arrow keys go from one to the next", onkeydown: (event) => this.keys(event) });
      this.about = make("div", { class: "about", "aria-live": "polite" });
      this.line = make("div", {});
      this.heads = make("div", {});
      this.element.setAttribute("aria-label", `Tokens of ${run.name}`);
      this.element.replaceChildren(make("div", { class: "head" }, make("h3", {}, `${run.name} (${run.algorithm})`), this.closer),
        make("div", { class: "controls" }, make("label", {}, "Run ", choice), make("div", { class: "text-choice" }, make("label", {}, "Text ", documents),
            make("button", { type: "button", onclick: move(-1), "aria-label": "Text before" }, "‹"), make("button", { type: "button", onclick: move(1), "aria-label": "Next text" }, "›")),
          heads, ...(xray.steps.length > 1 ? [make("label", {}, "After step ", slider, this.stepName)] : []),
          make("label", {}, numbers, "numbers")),
        this.state, this.key, this.text, this.about, this.line, ...this.which(), this.heads,
        make("p", { class: "soft" }, `From ${xray.rows} of ${xray.total} rows of ${xray.source}. Weighed in batches of ${xray.batch} rows, as in training.`));
      this.update();
    }

    range() {
      if (scale === "common") return [0, LARGEST];
      const [low, high] = d3.extent(weightsOf(runs[this.run]));
      return [low ?? 0, high ?? 1];
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
      this.tokens = shown.text.map((text, place) => this.token(text, place, weights[place], range));
      this.text.replaceChildren(...this.tokens);
      if (shown.text.length < shown.tokens) this.text.append(make("span", { class: "soft" }, ` … ${shown.tokens - shown.text.length} more tokens`));
      this.tellState();
      this.tellScale(range);
      this.tell();
      this.drawAlong();
      this.tellHeads();
    }

    token(text, place, weight, range) {
      const token = make("span", { class: "token", role: "button", tabindex: place === (this.chosen ?? 0) ? "0" : "-1", "data-place": place,
        "aria-label": `${text.trim() || "blank"}, ${weight === null ? "not learned" : `weight ${short(weight)}`}`,
        onfocus: () => this.choose(place), onclick: () => { this.choose(place); token.focus(); }, onpointerenter: (event) => { if (event.pointerType === "mouse") this.tell(place); } });
      if (weight === null) token.classList.add("unlearned"); else this.dress(token, weight, range);
      if (place === this.chosen) token.classList.add("chosen");
      const [first, ...lines] = inText(text).split(/(?=\n)/);
      // The number belongs before the end of the line, not to the token that begins the next.
      token.append(first, ...(this.numbers && weight !== null ? [make("sub", { "aria-hidden": "true" }, short(weight))] : []), lines.join(""));
      return token;
    }

    tellState() {
      const { xray, shown, at } = this, heads = at.weights;
      const same = heads.length > 1 && shown.text.every((_, place) => new Set(heads.map((head) => head[place]).filter((weight) => weight !== null)).size < 2);
      const prior = this.prior ? ` In the loss they are multiplied by the prior of head ${this.head + 1}, ${short(this.prior[this.head])}.` : "";
      this.state.textContent = `Text ${this.document + 1} of ${xray.documents.length} (${fileName(shown.where)}), weights of head ${this.head + 1}, after step ${xray.steps[this.step]}.`
        + (same ? ` Every head that predicts a token gives it the same weight here; head k cannot predict the first k tokens.` : "") + prior;
    }

    tellScale(range) {
      const weights = [...new Set([range[0], ...d3.ticks(range[0], range[1], 3), range[1]].map(short))];
      const sample = (weight) => {
        const each = make("span", { class: "token" }, weight);
        this.dress(each, +weight, range);
        return each;
      };
      this.key.replaceChildren("Weight: ", ...weights.map(sample), make("span", { class: "token unlearned" }, "not learned"),
        ...(scale === "common" ? [] : [make("span", {}, "This run's own scale: shades cannot be compared with other runs.")]));
    }

    tellHeads() {
      const headers = ["head", ...(this.prior ? ["prior in the loss"] : []), "mean", "largest", "share above 0", "effective sample size (share)"];
      const rows = this.xray.statistics[this.step].map((head, number) => [String(number + 1), ...(this.prior ? [short(this.prior[number])] : []),
        short(head.mean), short(head.max), short(head.share_kept), short(head.effective_share)]);
      this.heads.replaceChildren(make("h4", {}, "Weights by head, over all rows that were weighed"), table(headers, rows));
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
      this.tell();
      this.redrawLine();
    }

    // Until a token is chosen, the one with the most weight is told of.
    tell(place = this.chosen ?? Math.max(0, d3.maxIndex(this.at.weights[this.head], (weight) => weight ?? -1))) {
      const { xray, shown, at, prior } = this, rows = [];
      for (const [name, values] of Object.entries(shown.scores)) rows.push([xray.labels[name] ?? name, short(Array.isArray(values) ? values[place] : values)]);
      for (const [name, values] of Object.entries(at.figures)) rows.push([name, short(values[place])]);
      const unlearned = at.weights.every((head) => head[place] === null);
      const heads = at.weights.map((weights, head) => [String(head + 1), short(weights[place]),
        ...(prior ? [short(weights[place] === null ? null : weights[place] * prior[head])] : []), short(at.ce[head][place])]);
      const over = xray.steps.length > 1 ? [make("p", {}, `Weight by head ${this.head + 1} after steps ${xray.steps.map((step, number) => `${step}: ${short(shown.steps[number].weights[this.head][place])}`).join(", ")}`)] : [];
      this.about.replaceChildren(make("p", {}, make("code", {}, seen(shown.text[place])), ` token ${place + 1} of ${shown.tokens}${unlearned ? ": not learned, as nothing of this text predicts it, or it is a prompt" : ""}`),
        make("div", { class: "beside" }, table(["head", "weight", ...(prior ? ["times prior"] : []), "loss of this model (nats)"], heads), ...(rows.length ? [table(["this token", ""], rows)] : [])),
        ...over, make("p", { class: "soft screen" }, "Point at another token, tap it, or go to it with Tab and the arrow keys."));
    }

    groups() {
      const { xray, shown, at } = this, figures = Object.entries(at.figures), groups = {};
      if (figures.length) groups["what lies behind the weight"] = at.figures;
      if (figures.length > 2) for (const [name, values] of figures) groups[`${name} alone`] = { [name]: values };
      const losses = { [`this model, head ${this.head + 1}`]: at.ce[this.head] };
      for (const [name, values] of Object.entries(shown.scores)) if (Array.isArray(values)) losses[xray.labels[name] ?? name] = values;
      return { ...groups, "losses (nats)": losses, weight: { [`head ${this.head + 1}`]: at.weights[this.head] } };
    }

    drawAlong() {
      const groups = this.groups(), wanted = this.along in groups ? this.along : Object.keys(groups)[0];
      const select = this.choice("along", Object.keys(groups).map((name) => [name, name]), wanted, (name) => { this.along = name; this.drawAlong(); document.getElementById(this.id("along")).focus(); });
      const series = Object.keys(groups[wanted]);
      const units = [...new Set([wanted, ...series].map((name) => /\(([^)]+)\)/.exec(name)?.[1]).filter(Boolean))];
      const points = series.flatMap((name) => groups[wanted][name].map((y, place) => ({ x: place + 1, y, series: name, text: seen(this.shown.text[place]) })).filter((point) => point.y !== null));
      const { figure, draw } = chart(`Along the text: ${wanted}`, points, series, { x: "token", y: wanted === "weight" ? "weight" : units.length === 1 ? units[0] : "", withKey: true,
        mark: () => (this.chosen === null ? null : this.chosen + 1), pick: (x) => this.choose(x - 1) });
      this.redrawLine = draw;
      this.line.replaceChildren(make("div", { class: "controls" }, make("label", {}, "Curve along the text ", select)), figure);
      draw();
    }

    // Which tokens count, in a sentence, by kind, and one by one.
    which() {
      const { kinds, ranked: { most, least }, texts, documents, steps } = this.xray;
      const title = make("h4", {}, "Which tokens are emphasised");
      if (!most.length || most[0][2] === least[0][2]) return [title, make("p", {}, `None: over all ${texts} texts every token has the same weight${this.prior ? ". Heads differ, by their prior in the loss" : ""}.`)];
      const of = ([name, , mean]) => `${name} (mean weight ${short(mean)})`;
      const said = `Over all ${texts} texts that were weighed, ${documents.length} of which can be read above, after step ${steps[steps.length - 1]}: of kinds of tokens, ${of(kinds[0])} count most and ${of(kinds[kinds.length - 1])} least. What makes a token count is above, in “How tokens are weighed”.`;
      const list = (name, rows) => make("div", {}, make("h5", {}, name), ...(rows[0][2] === rows[rows.length - 1][2] ? [make("p", { class: "soft" }, "All equal; the most frequent come first.")] : []),
        table(["token", "mean weight", "occurs"], rows.map(([text, count, mean]) => [make("code", {}, seen(text)), short(mean), `${count} ×`])));
      return [title, make("p", {}, said), table(["kind of token", "mean weight", "occurs"], kinds.map(([name, count, mean]) => [name, short(mean), `${count} ×`])),
        make("details", {}, make("summary", {}, "Single tokens with the most and the least weight"), make("div", { class: "ranked" }, list("Most weight", most), list("Least weight", least)))];
    }
  }

  const place = make("div", { class: "panes" });
  const more = make("button", { type: "button", id: "more", onclick: () => { open(next()); document.getElementById(panes[panes.length - 1].id("run")).focus(); } });
  const next = () => Math.max(0, runs.findIndex((_, run) => !panes.some((pane) => pane.run === run)));
  function tidy() {
    panes.forEach((pane) => { pane.closer.disabled = panes.length === 1; });
    more.textContent = `Show ${runs[next()].name} beside these`;
  }
  function open(run) {
    const pane = new Pane(run);
    panes.push(pane);
    place.append(pane.element);
    pane.update(); // once more: only now its width is known
    tidy();
  }
  function close(pane) {
    panes = panes.filter((each) => each !== pane);
    pane.element.remove();
    tidy();
    more.focus();
  }
  const again = () => panes.forEach((pane) => pane.update());
  if (!target || !runs.length) return again;
  const scales = make("select", { id: "xray-scale", onchange: (event) => { scale = event.target.value; again(); } },
    make("option", { value: "common" }, `the same for all runs: 0 to ${short(LARGEST)}`), make("option", { value: "own" }, "each run's own: least to largest weight"));
  target.append(make("div", { class: "controls" }, make("label", {}, "Scale of shades ", scales)), place, make("p", {}, more));
  runs.forEach((_, run) => open(run));
  return again;
};
