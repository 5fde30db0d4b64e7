"use strict";
(() => {
  const data = JSON.parse(document.getElementById("details").textContent);
  const overview = document.getElementById("overview");
  const article = document.getElementById("instance");
  const body = document.querySelector("#table tbody");
  const heads = [...document.querySelectorAll("#table th")];
  const rows = [...body.rows].map((row) => ({
    row, number: Number(row.dataset.i), text: row.textContent.toLowerCase(), cells: [...row.cells].map((c) => c.textContent.trim()),
  }));
  const titles = new Map(rows.map((r) => [r.number, r]));
  const statusColumns = heads.map((h, i) => (h.textContent.trim() !== "known" && i + 1 < heads.length && heads[i + 1].dataset.sort === "number" ? i : -1)).filter((i) => i >= 0);
  const modelColumn = heads.findIndex((h) => h.textContent.trim() === "model");
  const title = document.title;
  let order = rows.slice();
  let scrolled = 0;

  // --- filter and sort ---------------------------------------------------------------------------------------
  const field = (id) => document.getElementById(id);
  function filter() {
    const words = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = field("status").value;
    const category = field("category") ? field("category").value : "";
    const differing = field("differing") && field("differing").checked;
    let shown = 0;
    for (const r of rows) {
      const fits = words.every((w) => r.text.includes(w))
        && (!status || statusColumns.some((c) => r.cells[c] === status))
        && (!category || r.cells[0] === category)
        && (!differing || new Set(statusColumns.map((c) => r.cells[c])).size > 1 || r.row.classList.contains("bad"));
      r.row.hidden = !fits;
      shown += fits;
    }
    field("shown").textContent = `${shown} shown`;
    field("none").hidden = shown > 0;
  }
  for (const name of ["input", "change"]) field("filter").addEventListener(name, filter);
  field("filter").addEventListener("submit", (event) => event.preventDefault());

  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const numeric = head.dataset.sort === "number";
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (r) => (numeric ? (r.cells[column] === "" ? Infinity : Number(r.cells[column])) : r.cells[column]);
    const compare = numeric ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
    order.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || a.number - b.number);
    body.append(...order.map((r) => r.row));
  }));
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a") && !String(getSelection())) location.hash = `i${row.dataset.i}`;
  });

  // --- counterexamples at a glance ---------------------------------------------------------------------------
  const GLANCE = 18;
  const drawn = [];
  for (const [i, outcomes] of data.items.entries()) {
    const found = outcomes.find((o) => o && o.witness && o.witness.pictures);
    if (found) drawn.push([i, found]);
  }
  function glance(entries) {
    for (const [i, o] of entries) {
      const top = (side) => best(o.witness.scores, side);
      const images = ["original", "counterexample"].map((name) => make("img", { src: o.witness.pictures[name], alt: name, loading: "lazy" }));
      const [before, after] = [top(1), top(2)];
      const words = o.label === undefined || !before ? "" : before[0] === after[0] ? `class ${before[0]}` : `class ${before[0]} → ${after[0]}`;
      const r = titles.get(i);
      document.querySelector(".gallery").append(make("a", { href: `#i${i}` }, make("div", {}, ...images),
        make("span", {}, make("b", {}, words), words ? make("br") : "", `${r.cells[modelColumn]} ${r.cells[modelColumn + 1]}`)));
    }
  }
  if (drawn.length) {
    const more = document.querySelector(".more");
    glance(drawn.slice(0, GLANCE));
    field("gallery").hidden = false;
    more.hidden = drawn.length <= GLANCE;
    more.textContent = `show all ${drawn.length}`;
    more.addEventListener("click", () => {
      glance(drawn.slice(GLANCE));
      more.hidden = true;
    });
  }

  // --- the page of one instance ------------------------------------------------------------------------------
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) if (value !== undefined && value !== null) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }
  const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(6)).toString());
  function pairs(entries) {
    const list = make("dl");
    for (const [name, value] of entries) if (value !== undefined && value !== "" && value !== null) list.append(make("dt", {}, name), make("dd", {}, String(value)));
    return list;
  }
  function table(names, lines, kinds) {
    const head = make("tr", {}, ...names.map((name, i) => make("th", { class: i && kinds ? "n" : null }, name)));
    const cells = lines.map((line) => make("tr", { class: line.kind }, ...line.cells.map((cell, i) => make("td", { class: i && kinds ? "n" : null }, cell))));
    return make("div", { class: "wide" }, make("table", { class: "compact" }, make("thead", {}, head), make("tbody", {}, ...cells)));
  }
  function best(scores, side) {
    const known = scores.filter((s) => s[side] !== null);
    return known.length ? known.reduce((a, b) => (b[side] > a[side] ? b : a)) : null;
  }
  function caption(scores, side, label) {
    const top = best(scores, side);
    if (!top) return "";
    return label === undefined ? `largest output Y_${top[0]}: ${number(top[side])}` : `class ${top[0]}, score ${number(top[side])}`;
  }
  function picture(source, heading, ...lines) {
    return make("figure", {}, make("img", { src: source, alt: heading }), make("figcaption", {}, make("b", {}, heading), ...lines.flatMap((line) => [make("br"), line])));
  }
  function counterexample(found, label) {
    const parts = [make("h3", {}, "Counterexample")];
    const p = found.pictures;
    if (p) {
      const largest = number(Number(p.largest.toPrecision(3)));
      const difference = picture(p.difference, p.magnified ? `difference, magnified ${number(Number(p.magnified.toPrecision(3)))}×` : "no difference", `${p.changed} of ${p.pixels} pixels changed`);
      difference.append(make("div", { class: "ramp" }), make("div", { class: "ends faint" }, make("span", {}, `-${largest}`), make("span", {}, "0"), make("span", {}, `+${largest}`)));
      parts.push(make("div", { class: "triple" },
        picture(p.original, "original", caption(found.scores, 1, label)),
        picture(p.counterexample, "counterexample", caption(found.scores, 2, label)), difference));
    }
    if (found.bars) {
      parts.push(table(["input", "lower", "", "upper", "centre", "counterexample"], found.bars.map(([i, low, high, before, after]) => {
        const place = (v) => `left:${high > low ? Math.min(100, Math.max(0, (100 * (v - low)) / (high - low))) : 50}%`;
        const track = make("div", { class: "track" }, make("i", { style: place(before), title: "centre" }), make("i", { class: "after", style: place(after), title: "counterexample" }));
        return { cells: [`X_${i}`, number(low), track, number(high), number(before), number(after)] };
      }), true));
    }
    parts.push(table([label === undefined ? "output" : "class", "before", "after"], found.scores.map(([i, before, after]) => ({
      kind: i === label ? "label" : null, cells: [label === undefined ? `Y_${i}` : `${i}${i === label ? " (the right one)" : ""}`, number(before), number(after)],
    })), true));
    parts.push(make("p", { class: "faint" }, `onnxruntime computed these outputs. No input lies farther than ${number(found.moved)} from ${found.bars ? "the centre of its range" : "the original"}.`));
    return parts;
  }
  function sentence(o) {
    if (o.verdict === "sat") return "Found: the counterexample below satisfies the property.";
    if (o.verdict === "unsat") return "None exists: it was proved that no input satisfies the property.";
    if (o.verdict === "timeout" || o.verdict === "unknown") return "Not decided: neither found nor excluded.";
    return "The run failed; this says nothing about the property.";
  }
  function stages(o) {
    const known = Object.entries(o.stages || {});
    const rest = Math.max(0, (o.seconds || 0) - known.reduce((sum, [, s]) => sum + s, 0));
    const all = [...known, ["reading and checking", rest]].filter(([, s]) => s > 0);
    const total = all.reduce((sum, [, s]) => sum + s, 0) || 1;
    return [make("h3", {}, "Time by stage"),
      make("div", { class: "stages", role: "img", "aria-label": "time by stage" }, ...all.map(([name, s], i) => make("span", { class: `run-${i % 6}`, style: `flex-grow:${s / total}`, title: name }))),
      make("p", {}, ...all.map(([name, s], i) => make("span", { class: `key run-${i % 6}` }, `${name} ${s.toPrecision(3)} s`)))];
  }
  function runPart(o, name, several) {
    const parts = [];
    if (several) parts.push(make("h2", {}, name));
    const answer = make("p", { class: "answer" }, make("span", { class: `verdict ${o.verdict}` }, o.verdict + (o.doubtful ? "?" : "")));
    if (o.seconds !== undefined) answer.append(`  in ${number(Number(o.seconds.toPrecision(3)))} s`);
    parts.push(answer);
    if (o.place === undefined) {
      if (o.message) parts.push(make("p", {}, o.message));
      return make("section", { class: "run" }, ...parts);
    }
    if (o.asked) parts.push(...o.asked.map((text) => make("p", {}, text)));
    parts.push(make("p", {}, make("b", {}, sentence(o)), o.evidence ? ` Evidence: ${o.evidence}.` : ""));
    if (o.message) parts.push(make("p", {}, o.message));
    if (o.output) parts.push(make("p", { class: "alarm" }, o.output));
    if (o.seen) parts.push(make("p", {}, "Last seen: " + Object.entries(o.seen).map(([k, v]) => `${k} ${v}`).join(", ")));
    if (o.witness) parts.push(...counterexample(o.witness, o.label));
    if (o.seconds !== undefined) parts.push(...stages(o));
    if (o.bounds && o.bounds.length) {
      parts.push(make("h3", {}, "Smallest margin of each disjunct"), table(["disjunct", "at least", "at most", "closed by"], o.bounds.map(([i, low, high, by]) => ({ cells: [String(i + 1), number(low), number(high), by || (o.witness && o.witness.disjunct === i ? "holds at the counterexample" : "open")] })), true));
      if (o.disjuncts > o.bounds.length) parts.push(make("p", { class: "faint" }, `and ${o.disjuncts - o.bounds.length} more`));
      parts.push(make("p", { class: "faint" }, "A disjunct with a positive lower bound is impossible; one with a margin of at most 0 at some input holds there."));
    }
    const place = data.places[o.place];
    parts.push(make("details", {}, make("summary", {}, "How to repeat it"), pairs([
      ["model", o.onnx], ["sha256", o.files && o.files.onnx + "…"], ["property", o.vnnlib], ["sha256", o.files && o.files.vnnlib + "…"],
      ["finished", o.finished + " UTC"], ["time-out", `${o.timeout} s`],
      ...Object.entries(place.options), ...Object.entries(place.machine), ...Object.entries(place.versions), ...Object.entries(o.counts || {}),
    ])));
    if (o.traceback) parts.push(make("details", {}, make("summary", {}, "What the worker said"), make("pre", {}, o.traceback)));
    return make("section", { class: "run" }, ...parts);
  }
  const names = JSON.parse(document.getElementById("names").textContent);
  function show() {
    const match = /^#i(\d+)$/.exec(location.hash);
    const chosen = match && titles.get(Number(match[1]));
    if (!chosen) {
      article.hidden = true;
      if (overview.hidden) {
        overview.hidden = false;
        window.scrollTo(0, scrolled);
      }
      document.title = title;
      return;
    }
    if (!overview.hidden) scrolled = window.scrollY;
    overview.hidden = true;
    article.hidden = false;
    const visible = order.filter((r) => !r.row.hidden || r === chosen);
    const at = visible.indexOf(chosen);
    const step = (other, words, key) => (other ? make("a", { href: `#i${other.number}`, "data-key": key }, words) : "");
    const heading = `${chosen.cells[modelColumn]} ${chosen.cells[modelColumn + 1]}`;
    const outcomes = data.items[chosen.number];
    const several = outcomes.filter(Boolean).length > 1;
    article.replaceChildren(
      make("nav", {}, make("a", { href: "#" }, "← all instances"), make("span", { class: "spread" }), step(visible[at - 1], "previous", "ArrowLeft"), step(visible[at + 1], "next", "ArrowRight")),
      make("h1", {}, heading), ...outcomes.flatMap((o, i) => (o ? [runPart(o, names[i], several)] : [])));
    document.title = heading;
    window.scrollTo(0, 0);
  }
  window.addEventListener("hashchange", show);
  document.addEventListener("keydown", (event) => {
    if (article.hidden || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") location.hash = "";
    const link = article.querySelector(`nav a[data-key="${event.key}"]`);
    if (link) {
      link.click();
      show(); // at once, for the next key may be on its way
    }
  });
  show();
})();
