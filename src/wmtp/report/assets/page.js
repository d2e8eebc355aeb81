// Curves over the run, and tokens where the report has them.
(() => {
  "use strict";
  const { data, make, key, span, chart, whenever } = kit;
  const names = data.runs.map((run) => run.name);
  let keys = [];

  // A key of the runs, above charts of which each has all of them.
  function runKey() {
    const place = make("div", { class: "above" });
    const draw = () => place.replaceChildren(key(names));
    keys.push(draw);
    draw();
    return place;
  }

  function curve(name) {
    return data.runs.flatMap((run) => run.log.filter((entry) => typeof entry[name] === "number")
      .map((entry) => ({ x: entry.step, y: entry[name], series: run.name })));
  }

  function curves() {
    const found = new Set(data.runs.flatMap((run) => run.log.flatMap((entry) => Object.keys(entry))));
    const of = (prefix) => [...found].filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
      .sort((a, b) => a.slice(prefix.length) - b.slice(prefix.length));
    const titles = { loss: "loss that is minimised: weighted", learning_rate: "learning rate", grad_norm: "norm of the gradient" };
    const kinds = [["Held-out cross-entropy", "nats", of("eval_ce_")], ["Training cross-entropy", "nats", of("ce_")],
      ["Held-out top-1 accuracy", "share", of("eval_top1_")], ["Loss, learning rate and gradient", "", Object.keys(titles).filter((name) => found.has(name))]]
      .filter(([, , metrics]) => metrics.length);
    const place = make("div", { class: "charts" });
    const select = make("select", { id: "curves-what" }, ...kinds.map(([title], number) => make("option", { value: number }, title)));
    const show = () => {
      const [title, unit, metrics] = kinds[select.value];
      // Heads are to be compared: their charts have one scale.
      const domain = unit ? span(metrics.flatMap(curve)) : undefined;
      const drawn = metrics.map((name) => {
        const head = /_(\d+)$/.exec(name);
        return chart(head ? `${title}, head ${head[1]}` : titles[name], curve(name), names, { x: "step", y: unit, domain });
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
    const what = { weight_share_kept: ["Pairs with a weight above 0", "share"], weight_effective_share: ["Effective sample size (1: all equal)", "share of pairs"],
      weight_entropy: ["Entropy of the weights (1: all equal)", ""], weight_max: ["Largest weight", ""] };
    const drawn = Object.entries(what).filter(([name]) => curve(name).length)
      .map(([name, [title, unit]]) => chart(title, curve(name), names, { x: "step", y: unit }));
    const explained = data.runs.flatMap((run) => run.explained.map((y, part) => ({ x: part + 1, y, series: run.name })).filter((point) => point.y !== null));
    const parts = Math.max(0, ...data.runs.map((run) => run.explained.length));
    if (explained.length) drawn.push(chart("Share of the reward's variance that value heads explain after stage 1", explained, names, { x: `part of a text (of ${parts} equal ones)`, y: "share" }));
    const target = document.getElementById("weights");
    if (!drawn.length) return target.append(make("p", {}, "The runs have logged no weights."));
    target.append(runKey(), make("div", { class: "charts" }, ...drawn.map((each) => each.figure)));
    drawn.forEach((each) => each.draw());
  }

  const again = tokens(document.getElementById("xray"));
  curves();
  weightCurves();
  whenever(() => { keys.forEach((draw) => draw()); again(); });
})();
