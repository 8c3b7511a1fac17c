// The live page map. What it draws and says comes from Python, one byte a page; it only joins
// keys, clicks and controls to the session's acts.

const CACHED = 1, MAPPED = 2, DIRTY = 4, COPIED = 8, UNKNOWN = 16;
const PATIENCE_MS = 5000;
const WIDTH = 900;
const ROWS_A_PAGE_KEY = 10;
const MARGIN = 8;  // for the cursor's ring around a page at the edge

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

// Looks --------------------------------------------------------------------------------------

function rgba(hex) {
  const [r, g, b] = [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
  return (255 << 24 | b << 16 | g << 8 | r) >>> 0;  // as a little-endian canvas stores it
}

// A page as a square of `cell` by `cell` pixels. Colour tells where it is, and so does size: what
// came nearer is larger. A dirty page is crossed by a bar; a private copy has a dark corner.
function stamp(state, cell, looks) {
  const white = rgba("#FFFFFF"), dark = rgba("#222222");
  const pixels = new Uint32Array(cell * cell).fill(white);
  const fill = (x, y, width, height, colour) => {
    for (let row = y; row < y + height; row++)
      pixels.fill(colour, row * cell + x, row * cell + x + width);
  };
  const full = cell > 4 ? cell - 1 : cell;
  const square = (side, colour) => {
    const at = (full - side) >> 1;
    fill(at, at, side, side, colour);
  };
  const small = Math.max(1, full >> 1), middle = Math.max(1, Math.round(full * 0.75));
  const bar = Math.max(1, full >> 2), corner = Math.max(1, Math.floor(full / 3));
  if (state & COPIED) {
    square(full, rgba(looks[3]));
    fill(0, 0, corner, corner, dark);
  } else if (state & MAPPED) square(full, rgba(looks[2]));
  else if (state & CACHED) square(middle, rgba(looks[1]));
  else if (state & UNKNOWN) square(small, rgba("#AAAAAA"));
  else square(small, rgba(looks[0]));
  if (state & DIRTY)
    fill(0, (full - bar) >> 1, full, bar, state & MAPPED && !(state & COPIED) ? white : dark);
  return pixels;
}

function stamps(cell, looks) {
  return Array.from({ length: 32 }, (_, state) => stamp(state, cell, looks));
}

function words(state) {
  if (state & UNKNOWN) return "not known on this system";
  const where = state & COPIED ? "a private copy, in this process's own memory"
    : state & MAPPED ? "mapped in this process" : state & CACHED ? "in the page cache"
    : "on disk only";
  return state & DIRTY ? `${where}, dirty` : where;
}

// The view -----------------------------------------------------------------------------------

function render({ model, el }) {
  const facts = model.get("facts");
  const { n_pages, page_bytes, columns, n_molecules } = facts;
  const looks = facts.looks.map(([, colour]) => colour);
  const cell = Math.max(1, Math.min(22, Math.floor(WIDTH / columns)));
  const rows = Math.ceil(n_pages / columns);
  const cut = stamps(cell, looks);
  const bytes = name => {
    const view = model.get(name);
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  };
  const onPages = new DataView(model.get("molecules").buffer, model.get("molecules").byteOffset);
  const keysId = `qm9-keys-${Math.random().toString(36).slice(2)}`;
  let cursor = 0, busySince = 0;

  // Acts

  const say = text => { status.textContent = text; };
  const act = (what, more = {}) => {
    if (busySince && performance.now() - busySince < PATIENCE_MS) return;
    busySince = performance.now();
    root.setAttribute("aria-busy", "true");
    const asked = busySince;
    setTimeout(() => {
      if (busySince === asked)
        say("No answer from the notebook's kernel: it is busy with a cell, or was restarted. "
          + "If it was restarted, run the cell again.");
    }, PATIENCE_MS);
    model.send({ act: what, store: access.value === "store", ...more });
  };
  const touch = (page, how = {}) => { move(page); act("page", { page, ...how }); };

  // The map: pages below, cursor and touched pages above

  const size = { width: columns * cell, height: rows * cell };
  const canvas = make("canvas", {
    ...size, tabindex: "0", role: "application", class: "qm9-pages",
    "aria-label": `Page map of ${facts.name}, ${number(n_pages)} pages`,
    "aria-describedby": keysId,
    "data-lm-suppress-shortcuts": "true",
  });
  const overlay = make("canvas", { width: size.width + 2 * MARGIN,
    height: size.height + 2 * MARGIN, class: "qm9-overlay", "aria-hidden": "true" });
  const hover = make("div", { class: "qm9-hover" }, "Point at a page to see what is on it.");
  const spoken = make("div", { class: "qm9-spoken", "aria-live": "polite" });

  function describe(page) {
    const first = onPages.getInt32(8 * page, true), last = onPages.getInt32(8 * page + 4, true);
    const on = first < 0 ? "" : first === last ? `molecule ${number(first)}, `
      : `molecules ${number(first)} to ${number(last)}, `;
    return `Page ${number(page)}, file offset ${number(page * page_bytes)}, ${on}`
      + `${words(bytes("states")[page])}`;
  }

  function draw() {
    const start = performance.now();
    const states = bytes("states"), context = canvas.getContext("2d");
    const image = context.createImageData(size.width, size.height);
    const pixels = new Uint32Array(image.data.buffer);
    pixels.fill(0xFFFFFFFF);
    for (let page = 0; page < n_pages; page++) {
      const from = cut[states[page]];
      let at = Math.floor(page / columns) * cell * size.width + (page % columns) * cell;
      for (let row = 0; row < cell; row++, at += size.width)
        pixels.set(from.subarray(row * cell, (row + 1) * cell), at);
    }
    context.putImageData(image, 0, 0);
    canvas.dataset.drawMs = (performance.now() - start).toFixed(2);
  }

  function drawOverlay() {
    const context = overlay.getContext("2d"), touched = bytes("touched");
    context.setTransform(1, 0, 0, 1, MARGIN, MARGIN);
    context.clearRect(-MARGIN, -MARGIN, overlay.width, overlay.height);
    const ring = (page, colour, width, grow) => {
      context.strokeStyle = colour;
      context.lineWidth = width;
      const x = (page % columns) * cell - grow, y = Math.floor(page / columns) * cell - grow;
      const side = cell + 2 * grow - (cell > 4 ? 1 : 0);
      context.strokeRect(x, y, side, side);
    };
    const few = touched.reduce((n, one) => n + one, 0) <= 64;
    if (few) touched.forEach((one, page) => { if (one) ring(page, "#D55E00", 2, 2); });
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
    const y = Math.floor((event.clientY - box.top) / box.height * rows);
    const page = y * columns + x;
    return x >= 0 && x < columns && y >= 0 && page < n_pages ? page : null;
  };
  canvas.addEventListener("click", event => {
    const page = pageAt(event);
    if (page !== null) touch(page);
  });
  canvas.addEventListener("mousemove", event => {
    const page = pageAt(event);
    hover.textContent = describe(page === null ? cursor : page);
  });
  canvas.addEventListener("mouseleave", () => { hover.textContent = describe(cursor); });
  const moves = {
    ArrowLeft: () => cursor - 1, ArrowRight: () => cursor + 1,
    ArrowUp: () => cursor - columns, ArrowDown: () => cursor + columns,
    PageUp: () => cursor - ROWS_A_PAGE_KEY * columns,
    PageDown: () => cursor + ROWS_A_PAGE_KEY * columns,
    Home: () => 0, End: () => n_pages - 1,
  };
  const keys = {
    Enter: () => touch(cursor), " ": () => touch(cursor),
    r: () => touch(cursor, { store: false }), s: () => touch(cursor, { store: true }),
  };
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) move(moves[event.key](), true);
    else if (keys[event.key]) { if (!event.repeat) keys[event.key](); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // Controls

  const button = (text, what, more = {}, attributes = {}) =>
    make("button", { type: "button", onclick: () => act(what, more), ...attributes }, text);
  const group = (legend, ...children) =>
    make("fieldset", {}, make("legend", {}, legend), ...children);
  const slider = (label, max, oninput) => {
    const shown = make("span", { class: "qm9-number", "aria-hidden": "true" }, "0");
    const input = make("input", { type: "range", min: 0, max, step: 1, value: 0, oninput });
    return [make("label", {}, make("span", {}, label), input), input, shown];
  };
  const access = make("select", {}, make("option", { value: "read" }, "read"),
    make("option", { value: "store" }, "store"));
  const [pageLabel, pageSlider, pageNumber] = slider("page", n_pages - 1,
    () => move(Number(pageSlider.value)));
  const [moleculeLabel, moleculeSlider, moleculeNumber] = slider("molecule",
    Math.max(0, n_molecules - 1),
    () => { moleculeNumber.textContent = number(Number(moleculeSlider.value)); });
  const touchPage = make("button", { type: "button", onclick: () => touch(cursor) }, "touch page");
  const touchMolecule = make("button", { type: "button",
    onclick: () => act("molecule", { molecule: Number(moleculeSlider.value) }) }, "touch molecule");
  const modes = facts.modes.map(name =>
    button(name, "advise", { name }, { "data-mode": name, "aria-pressed": "false" }));
  const actions = facts.actions.map(name => button(name, "advise", { name }));

  const status = make("p", { role: "status", class: "qm9-said" });
  const legend = make("ul", { class: "qm9-legend", "aria-label": "Pages by state" });
  const table = make("table", { class: "qm9-log" },
    make("caption", {}, "The last acts, newest first: faults of the act, then pages after it"),
    make("thead", {}, make("tr", {}, ...["act", "major", "minor", "cached", "mapped", "dirty"]
      .map(name => make("th", { scope: "col" }, name)))));
  const body = make("tbody");
  table.append(body);

  const molecules = n_molecules
    ? [make("div", { class: "qm9-row" }, moleculeLabel, moleculeNumber, touchMolecule)] : [];
  const advice = facts.modes.length + facts.actions.length
    ? [group("madvise: from now on", ...modes), group("madvise: now", ...actions)] : [];
  const root = make("div", { class: "qm9-page-map", "data-lm-suppress-shortcuts": "true",
      "data-pages": n_pages, "data-columns": columns },
    make("p", { class: "qm9-keys", id: keysId },
      "Click a page to touch it. Or focus the map: arrow keys move, Enter touches, "
      + "r reads, s stores. A store puts back the byte that is there."),
    make("div", { class: "qm9-scroll" }, make("div", { class: "qm9-stack" }, canvas, overlay)),
    hover, spoken, legend, status,
    make("div", { class: "qm9-row" }, make("label", {}, make("span", {}, "touch to"), access)),
    make("div", { class: "qm9-row" }, pageLabel, pageNumber, touchPage),
    ...molecules,
    make("div", { class: "qm9-row" },
      group("the map", button("scan", "scan"), button("flush", "flush"),
        button("drop the mapping", "drop")),
      group("the page cache", button("make cold", "cold"), button("look again", "look"))),
    make("div", { class: "qm9-row" }, ...advice),
    make("div", { class: "qm9-scroll" }, table));
  if (facts.missing) root.append(make("p", { class: "qm9-missing" }, facts.missing));

  // What Python said

  function drawLegend() {
    const counts = [0, 0, 0, 0, 0, 0];
    for (const state of bytes("states")) {
      const kind = state & UNKNOWN ? 5 : state & COPIED ? 3 : state & MAPPED ? 2 : state & CACHED;
      counts[kind]++;
      if (state & DIRTY) counts[4]++;
    }
    const shown = [[0, "on disk only", 0], [1, "in the page cache, not mapped", CACHED],
      [2, "mapped in this process", MAPPED], [4, "dirty", CACHED | MAPPED | DIRTY]];
    if (counts[3]) shown.splice(3, 0, [3, "private (anonymous)", COPIED]);
    if (counts[5]) shown.push([5, "not known here", UNKNOWN]);
    legend.replaceChildren(...shown.map(([kind, name, state]) => {
      const swatch = make("canvas", { width: 16, height: 16, "aria-hidden": "true" });
      const image = swatch.getContext("2d").createImageData(16, 16);
      new Uint32Array(image.data.buffer).set(stamp(state, 16, looks));
      swatch.getContext("2d").putImageData(image, 0, 0);
      return make("li", { "data-state": name }, swatch, ` ${name}: ${number(counts[kind])}`);
    }));
  }

  function redraw() {
    busySince = 0;
    root.removeAttribute("aria-busy");
    draw();
    drawLegend();
    move(cursor);
    say(model.get("said"));
    for (const each of modes)
      each.setAttribute("aria-pressed", String(each.dataset.mode === model.get("mode")));
    body.replaceChildren(...model.get("lines").map(line => make("tr", {},
      ...line.map((value, at) => make(at ? "td" : "th", at ? {} : { scope: "row" },
        typeof value === "number" ? number(value) : value)))));
    root.dataset.step = model.get("step");
  }

  el.append(root);
  redraw();
  model.on("change:step", redraw);
  return () => model.off("change:step", redraw);
}

export default { render };
