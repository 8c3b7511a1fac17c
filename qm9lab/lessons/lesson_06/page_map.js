// The live page map. What it draws and says comes from Python, one byte a page. It only connects
// keys, clicks and controls to the session's acts.

const CACHED = 1, MAPPED = 2, DIRTY = 4, UNKNOWN = 8;
const PATIENCE_MS = 5000;
const WIDTH = 900;
const ROWS_A_PAGE_KEY = 10;
const MARGIN = 8;  // for the cursor's ring around a page at the edge

// What a page is: the first of these whose bit is set. Colour shows it, and so does the side of the
// square, as a share of the page's place: what came nearer is larger.
const KINDS = [
  { name: "not known on this system", bit: UNKNOWN, colour: 3, share: 0.5 },
  { name: "mapped in this process", bit: MAPPED, colour: 2, share: 1 },
  { name: "in the page cache, not mapped", bit: CACHED, colour: 1, share: 0.75 },
  { name: "on disk only", bit: 0, colour: 0, share: 0.5 },
];

const kindOf = state => KINDS.find(({ bit }) => state & bit || bit === 0);
const number = n => n.toLocaleString("en-US");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "oninput") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// A canvas with one page. A dirty page is crossed by a bar.
function drawPage(cell, state, colours) {
  const canvas = make("canvas", { width: cell, height: cell, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const full = cell > 4 ? cell - 1 : cell, kind = kindOf(state);
  const fill = (colour, ...box) => {
    context.fillStyle = colour;
    context.fillRect(...box);
  };
  const part = share => Math.max(1, Math.floor(full * share));
  const side = part(kind.share), edge = (full - side) >> 1, bar = part(0.25);
  fill("#FFFFFF", 0, 0, cell, cell);
  fill(colours[kind.colour], edge, edge, side, side);
  if (state & DIRTY)
    fill(kind.bit === MAPPED ? "#FFFFFF" : "#222222", 0, (full - bar) >> 1, full, bar);
  return canvas;
}

function render({ model, el }) {
  const facts = model.get("facts");
  const { n_pages, columns, n_molecules } = facts;
  const { colours } = facts;
  const cell = Math.max(1, Math.min(22, Math.floor(WIDTH / columns)));
  const rows = Math.ceil(n_pages / columns);
  const size = { width: columns * cell, height: rows * cell };
  const stamps = Array.from({ length: 16 }, (_, state) => {  // pixels: much faster to repeat
    const context = drawPage(cell, state, colours).getContext("2d");
    return new Uint32Array(context.getImageData(0, 0, cell, cell).data.buffer);
  });
  const onPages = model.get("molecules");
  const keysId = `qm9-keys-${Math.random().toString(36).slice(2)}`;
  let cursor = 0, busySince = 0;

  // Acts: the session's methods by name

  const act = (method, ...args) => {
    if (busySince && performance.now() - busySince < PATIENCE_MS) return;
    const asked = busySince = performance.now();
    root.setAttribute("aria-busy", "true");
    setTimeout(() => {
      if (busySince === asked)
        status.textContent = "No answer from the notebook's kernel: it is busy with a cell, or "
          + "was restarted. If it was restarted, run the cell again.";
    }, PATIENCE_MS);
    model.send({ act: method, args });
  };
  const isWrite = () => access.value === "write";
  const touch = (page, write = isWrite()) => { move(page); act("touch", page, write); };

  // The map: pages below, cursor and touched pages above

  const canvas = make("canvas", {
    ...size, tabindex: "0", role: "application", class: "qm9-pages",
    "aria-label": `Page map of ${facts.name}, ${number(n_pages)} pages`,
    "aria-describedby": keysId,
  });
  const overlay = make("canvas", { width: size.width + 2 * MARGIN,
    height: size.height + 2 * MARGIN, class: "qm9-overlay", "aria-hidden": "true" });
  const hover = make("div", { class: "qm9-hover" });
  const spoken = make("div", { class: "qm9-spoken", "aria-live": "polite" });

  function describe(page) {
    const [first, last] = [0, 4].map(at => onPages.getInt32(8 * page + at, true));
    const state = model.get("states").getUint8(page);
    const parts = [`Page ${number(page)}`, `file offset ${number(page * facts.page_bytes)}`];
    parts.push(first === last ? `molecule ${number(first)}`
      : `molecules ${number(first)} to ${number(last)}`);
    return [...parts, kindOf(state).name, ...(state & DIRTY ? ["dirty"] : [])].join(", ");
  }

  function drawOverlay() {
    const context = overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, MARGIN, MARGIN);
    context.clearRect(-MARGIN, -MARGIN, overlay.width, overlay.height);
    const ring = (page, colour, width, grow) => {
      const side = cell + 2 * grow - (cell > 4 ? 1 : 0);
      const x = page % columns * cell - grow, y = Math.floor(page / columns) * cell - grow;
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.strokeRect(x, y, side, side);
    };
    for (const page of model.get("touched")) ring(page, "#D55E00", 2, 2);
    const grow = Math.max(3, Math.round((12 - cell) / 2));
    ring(cursor, "#FFFFFF", 4, grow);
    ring(cursor, "#222222", 2, grow);
  }

  function move(page, aloud = false) {
    cursor = Math.max(0, Math.min(n_pages - 1, page));
    pageSlider.value = cursor;
    pageNumber.textContent = number(cursor);
    hover.textContent = describe(cursor);
    pageSlider.setAttribute("aria-valuetext", describe(cursor));
    if (aloud) spoken.textContent = describe(cursor);
    drawOverlay();
  }

  const pageAt = event => {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * columns);
    const page = Math.floor((event.clientY - box.top) / box.height * rows) * columns + x;
    return x >= 0 && x < columns && page >= 0 && page < n_pages ? page : null;
  };
  canvas.addEventListener("click", event => {
    const page = pageAt(event);
    if (page !== null) touch(page);
  });
  canvas.addEventListener("mousemove", event => {
    hover.textContent = describe(pageAt(event) ?? cursor);
  });
  canvas.addEventListener("mouseleave", () => { hover.textContent = describe(cursor); });
  const moves = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    PageUp: -ROWS_A_PAGE_KEY * columns, PageDown: ROWS_A_PAGE_KEY * columns,
    Home: -n_pages, End: n_pages,
  };
  const keys = {
    Enter: () => touch(cursor), " ": () => touch(cursor),
    r: () => touch(cursor, false), w: () => touch(cursor, true),
  };
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!(event.key in moves) && !(event.key in keys)) return;
    if (event.key in moves) move(cursor + moves[event.key], true);
    else if (!event.repeat) keys[event.key]();
    event.preventDefault();
    event.stopPropagation();
  });

  // Controls

  const row = (...children) => make("div", { class: "qm9-row" }, ...children);
  const group = (legend, ...children) =>
    make("fieldset", {}, make("legend", {}, legend), ...children);
  const button = (text, onclick, attributes = {}) =>
    make("button", { type: "button", onclick, ...attributes }, text);
  const labelled = (label, input) => make("label", {}, make("span", {}, label), input);
  const slider = (n, oninput) =>
    make("input", { type: "range", min: 0, max: n - 1, step: 1, value: 0, oninput });
  const shown = () => make("span", { class: "qm9-number", "aria-hidden": "true" }, "0");

  const access = make("select", {}, make("option", {}, "read"), make("option", {}, "write"));
  const pageNumber = shown(), moleculeNumber = shown();
  const pageSlider = slider(n_pages, () => move(Number(pageSlider.value)));
  const molecule = () => Number(moleculeSlider.value);
  const moleculeSlider = slider(n_molecules,
    () => { moleculeNumber.textContent = number(molecule()); });
  const modes = facts.modes.map(name =>
    button(name, () => act("advise", name), { "data-mode": name }));
  const actions = facts.actions.map(name => button(name, () => act("advise", name)));

  const status = make("p", { role: "status", class: "qm9-sentence" });
  const legend = make("ul", { class: "qm9-legend", "aria-label": "Pages by state" });
  const body = make("tbody");
  const heads = ["act", "major", "minor", "cached", "mapped", "dirty"];
  const table = make("table", { class: "qm9-log" },
    make("caption", {}, "The last acts, newest first: faults of the act, then pages after it"),
    make("thead", {}, make("tr", {}, ...heads.map(name => make("th", { scope: "col" }, name)))),
    body);

  const root = make("div", { class: "qm9-page-map", "data-lm-suppress-shortcuts": "true",
      "data-pages": n_pages, "data-columns": columns },
    make("p", { class: "qm9-keys", id: keysId },
      "Click a page to touch it. Or focus the map: arrow keys move, Enter touches, "
      + "r reads, w writes. A write puts back the byte that is there."),
    make("div", { class: "qm9-scroll" }, make("div", { class: "qm9-stack" }, canvas, overlay)),
    hover, spoken, legend, status,
    row(labelled("touch to", access)),
    row(labelled("page", pageSlider), pageNumber, button("touch page", () => touch(cursor))),
    row(labelled("molecule", moleculeSlider), moleculeNumber,
      button("touch molecule", () => act("touch_molecule", molecule(), isWrite()))),
    row(group("the map", button("scan", () => act("scan", isWrite())),
      button("flush", () => act("flush")), button("drop the map", () => act("drop"))),
    group("the page cache", button("make cold", () => act("make_cold")),
      button("look again", () => act("look")))));
  if (modes.length)
    root.append(row(group("madvise: from now on", ...modes), group("madvise: now", ...actions)));
  root.append(make("div", { class: "qm9-scroll" }, table));
  if (facts.unavailable)
    root.append(make("p", { class: "qm9-unavailable" }, facts.unavailable));

  // What Python found

  function draw() {
    const start = performance.now(), context = canvas.getContext("2d");
    const states = model.get("states"), counts = new Array(stamps.length).fill(0);
    const image = context.createImageData(size.width, size.height);
    const pixels = new Uint32Array(image.data.buffer).fill(0xFFFFFFFF);
    for (let page = 0; page < n_pages; page++) {
      const state = states.getUint8(page);
      let at = Math.floor(page / columns) * cell * size.width + page % columns * cell;
      for (let line = 0; line < cell; line++, at += size.width)
        pixels.set(stamps[state].subarray(line * cell, (line + 1) * cell), at);
      counts[state]++;
    }
    context.putImageData(image, 0, 0);
    canvas.dataset.drawMs = (performance.now() - start).toFixed(2);
    const total = isMeant => counts.reduce((sum, n, state) => sum + (isMeant(state) ? n : 0), 0);
    const shown = [...KINDS].reverse().map(kind => [kind, total(s => kindOf(s) === kind)])
      .filter(([kind, n]) => kind.bit < UNKNOWN || n > 0);
    shown.push([{ name: "dirty", bit: MAPPED | DIRTY }, total(s => s & DIRTY)]);
    legend.replaceChildren(...shown.map(([kind, n]) =>
      make("li", {}, drawPage(16, kind.bit, colours), ` ${kind.name}: ${number(n)}`)));
  }

  function redraw() {
    busySince = 0;
    root.removeAttribute("aria-busy");
    draw();
    move(cursor);
    status.textContent = model.get("sentence");
    for (const each of modes)
      each.setAttribute("aria-pressed", String(each.dataset.mode === model.get("mode")));
    body.replaceChildren(...model.get("lines").map(([name, ...values]) => make("tr", {},
      make("th", { scope: "row" }, name),
      ...values.map(value => make("td", {}, value === "?" ? value : number(value))))));
    root.dataset.step = model.get("step");
  }

  el.append(root);
  redraw();
  model.on("change:step", redraw);
  return () => model.off("change:step", redraw);
}

export default { render };
