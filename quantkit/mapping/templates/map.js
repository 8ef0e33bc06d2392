"use strict";
// Draws the map from the data in the page: cards and folded blocks in rows, edges between them. Layouts were computed when
// the page was made; unfolding a block makes room in its row. All names are set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const view = by("view"), panel = by("panel");
  const WIDTH = 184, HEIGHT = 58, GAP_X = 22, GAP_Y = 34, PAD = 14, HEAD = 30, FAR = 0.45;
  const isBlock = (item) => item < 0;
  const blockOf = (item) => data.blocks[-1 - item];

  // ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────
  const opened = new Set();         // unfolded blocks
  const parent = new Map();         // item → the block that it is in
  data.blocks.forEach((block, i) => block.items.forEach((item) => parent.set(item, -1 - i)));
  const state = { mode: 0, chosen: null, found: new Set(), scale: 1, x: 0, y: 0 };
  let elements = new Map();         // item → its element
  let boxes = new Map();            // item → its box on the map
  let neighbours = new Map();       // item → { before, behind, row } among the shown items
  let edges = [];                   // { from, to, element }
  let world, bounds;

  const ancestors = (item) => {
    const found = [];
    for (let at = parent.get(item); at !== undefined; at = parent.get(at)) found.push(at);
    return found;
  };
  // The item that stands for another one: itself, or the outermost folded block that it is in.
  const shownFor = (item) => ancestors(item).reverse().find((block) => !opened.has(block)) ?? item;
  // Bin, text, and of a block with several bins the share of each.
  const shadeOf = (item) => {
    const mode = data.modes[state.mode];
    return mode ? (isBlock(item) ? mode.blocks[-1 - item] : mode.cards[item]) : [-1, ""];
  };
  const labelOf = (item) => {
    const [, text] = shadeOf(item);
    const mode = data.modes[state.mode];
    const said = text ? `, ${mode.label} ${text}` : "";
    const differs = isMarked(item) ? ", differs" : "";
    if (isBlock(item)) return `Block ${blockOf(item).name}, ${blockOf(item).about}${said}${differs}`;
    const [name, operator] = data.cards[item];
    return `${operator} ${name}${said}${differs}`;
  };
  const marked = new Set(data.marked);
  const cardsOf = (item) => isBlock(item) ? blockOf(item).items.flatMap(cardsOf) : [item];
  const isMarked = (item) => marked.size > 0 && cardsOf(item).some((card) => marked.has(card));

  // ── layout: rows that make room for unfolded blocks ──────────────────────────────────────────────────────────────
  const largest = (values) => values.reduce((most, one) => Math.max(most, one));  // for any number of values

  function sizeOf(item) {
    if (item === null) return { w: 0, h: 0 };
    if (!isBlock(item) || !opened.has(item)) return { w: WIDTH, h: HEIGHT };
    const inner = arrange(blockOf(item), true);
    return { w: Math.max(WIDTH, inner.w) + 2 * PAD, h: inner.h + HEAD + PAD, inner };
  }

  function arrange(level, ports) {
    const layout = data.layouts[level.layout];
    const items = ports ? [...level.items, null, null] : level.items;
    const rows = [];
    const put = (row, entry) => { (rows[row] ??= []).push(entry); return entry; };
    const placed = items.map((item, i) =>
      put(layout.rows[i], { item, base: layout.places[i] * (WIDTH + GAP_X), ...sizeOf(item) }));
    const paths = layout.paths.map(([from, to, ...bends]) => ({
      from, to, bends: bends.map((place, k) => put(layout.rows[from] + 1 + k, { base: place * (WIDTH + GAP_X), w: 0, h: 0 })),
    }));
    let y = 0;
    for (const row of rows) {
      row.sort((a, b) => a.base - b.base);
      const extra = row.map((entry) => Math.max(0, entry.w - WIDTH));
      let before = -extra.reduce((sum, one) => sum + one, 0) / 2;
      const height = largest(row.map((entry) => entry.h));
      row.forEach((entry, i) => {
        Object.assign(entry, { x: entry.base + before + extra[i] / 2, y, top: y, bottom: y + height, row });
        before += extra[i];
      });
      y += height + (height ? GAP_Y : GAP_Y / 2);
    }
    const all = rows.flat();
    const left = -largest(all.map((entry) => entry.w / 2 - entry.x));
    const right = largest(all.map((entry) => entry.x + entry.w / 2));
    all.forEach((entry) => { entry.x -= left; });
    const lines = paths.map(({ from, to, bends }) => {
      const a = placed[from], b = placed[to];
      const points = [[a.x, a.y + a.h], [a.x, a.bottom]];
      bends.forEach((bend) => points.push([bend.x, bend.top], [bend.x, bend.bottom]));
      points.push([b.x, b.y]);
      return { from: a.item, to: b.item, points };
    });
    return { w: right - left, h: Math.max(0, y - GAP_Y), placed, lines };
  }

  // ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────
  function svg(name, attributes, inside) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    inside?.append(element);
    return element;
  }
  function html(name, text, inside, attributes = {}) {
    const element = document.createElement(name);
    if (text !== null) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    inside?.append(element);
    return element;
  }
  const shorten = (text, most) =>
    text.length <= most ? text : `${text.slice(0, Math.floor(most / 3))}…${text.slice(text.length - Math.ceil(most * 2 / 3) + 1)}`;
  const cut = (text, most) => text.length <= most ? text : `${text.slice(0, most - 1)}…`;
  const pen = document.createElement("canvas").getContext("2d"), family = getComputedStyle(document.body).fontFamily;
  const LINES = [["kind", `650 12px ${family}`], ["name", `11px ${family}`], ["value", `12px ${family}`]];
  // As much of a text as has room, whatever its letters are.
  function fitting(text, font, shortened, room) {
    pen.font = font;
    const fits = (most) => pen.measureText(shortened(text, most)).width <= room;
    let low = 1, high = text.length;
    if (fits(high)) return text;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      fits(middle) ? low = middle : high = middle - 1;
    }
    return shortened(text, low);
  }
  const binClass = (bin) => bin < 0 ? "none" : `${data.modes[state.mode].ordered ? "o" : "c"}${bin}`;
  const stripeWidth = (bin) => bin < 0 ? 0 : 6 + 4 * bin;
  const curve = (points) => {
    let path = `M${points[0][0]} ${points[0][1]}`;
    for (let i = 1; i < points.length; i++) {
      const [x, y] = points[i], [fromX, fromY] = points[i - 1], middle = (y + fromY) / 2;
      path += Math.abs(x - fromX) < 0.5 ? `L${x} ${y}` : `C${fromX} ${middle} ${x} ${middle} ${x} ${y}`;
    }
    return path;
  };

  function drawLevel(level, inside, dx, dy) {
    const lines = svg("g", {}, inside);
    level.placed.forEach((entry) => {
      if (entry.item === null) return;
      const x = dx + entry.x - entry.w / 2, y = dy + entry.y;
      boxes.set(entry.item, { x, y, w: entry.w, h: entry.h, row: entry.row });
      entry.inner ? drawOpen(entry, inside, x, y) : drawCard(entry.item, inside, x, y);
    });
    for (const { from, to, points } of level.lines) {
      const element = svg("path", { class: "edge", d: curve(points.map(([x, y]) => [x + dx, y + dy])) }, lines);
      edges.push({ from, to, element });
      if (from === null || to === null) continue;
      (neighbours.get(from) ?? neighbours.set(from, { before: [], behind: [] }).get(from)).behind.push(to);
      (neighbours.get(to) ?? neighbours.set(to, { before: [], behind: [] }).get(to)).before.push(from);
    }
  }

  function drawOpen(entry, inside, x, y) {
    const group = svg("g", {}, inside);
    svg("rect", { class: "frame", x, y, width: entry.w, height: entry.h, rx: 8 }, group);
    const head = svg("g", { class: "card open", role: "button", tabindex: -1, "aria-expanded": "true" }, group);
    svg("rect", { class: "body", x, y, width: entry.w, height: HEAD - 6, rx: 6 }, head);
    const text = svg("text", { class: "kind", x: x + 10, y: y + 16 }, head);
    text.textContent = `▾ ${shorten(blockOf(entry.item).name, Math.floor(entry.w / 8))}`;
    elements.set(entry.item, head);
    colourCard(entry.item);
    drawLevel(entry.inner, group, x + (entry.w - entry.inner.w) / 2, y + HEAD);
  }

  function drawCard(item, inside, x, y) {
    const group = svg("g", { class: "card", role: "button", tabindex: -1 }, inside);
    const block = isBlock(item);
    if (block) svg("rect", { class: "under", x: x + 5, y: y + 5, width: WIDTH, height: HEIGHT, rx: 7 }, group);
    svg("rect", { class: "body", x, y, width: WIDTH, height: HEIGHT, rx: 7 }, group);
    svg("g", {}, group);  // for its stripe
    LINES.forEach(([kind], i) => svg("text", { class: kind, y: y + 17 + 16 * i }, group));
    if (isMarked(item)) svg("text", { class: "mark", x: x + WIDTH - 16, y: y + 17 }, group).textContent = "Δ";
    if (block) group.setAttribute("aria-expanded", "false");
    elements.set(item, group);
    colourCard(item);
  }

  function colourCard(item) {
    const element = elements.get(item), { x, y } = boxes.get(item);
    element.setAttribute("aria-label", labelOf(item));
    if (element.classList.contains("open")) return;
    const [bin, value, shares = [[bin, 1]]] = shadeOf(item), stripe = element.querySelector("g");
    const least = shares.length > 1 ? 8 : 0, room = HEIGHT - 4 - least * shares.length;
    let top = y + 2;
    stripe.replaceChildren();
    for (const [own, share] of shares) {
      const height = least + room * share;
      svg("rect", { class: `stripe ${binClass(own)}`, x: x + 2, y: top, width: stripeWidth(own), height, rx: 3 }, stripe);
      top += height;
    }
    const texts = isBlock(item)
      ? [`▸ ${blockOf(item).title}`, blockOf(item).name, value]
      : [data.cards[item][1], data.cards[item][0], value];
    const start = stripeWidth(largest(shares.map(([own]) => own))) + 10;
    element.querySelectorAll(".kind, .name, .value").forEach((text, i) => {
      text.setAttribute("x", x + start);
      const shortened = i === 0 || shares.length > 1 && i === 2 ? cut : shorten;  // a number cut in the middle reads as another
      text.textContent = fitting(texts[i], LINES[i][1], shortened, WIDTH - start - 6 - (i === 0 && isMarked(item) ? 16 : 0));
    });
  }

  function draw() {
    elements = new Map(); boxes = new Map(); neighbours = new Map(); edges = [];
    const level = arrange(data.root, false);
    const next = svg("g", {});
    drawLevel(level, next, 0, 0);
    world ? world.replaceWith(next) : view.append(next);
    world = next;
    bounds = { x: 0, y: 0, w: level.w, h: level.h };
    mark();
    place();
  }

  function mark() {
    const found = new Set([...state.found].map(shownFor));
    for (const [item, element] of elements) {
      element.classList.toggle("found", found.has(item));
      element.classList.toggle("marked", isMarked(item));
      element.classList.toggle("chosen", item === state.chosen);
      element.setAttribute("tabindex", item === (elements.has(state.chosen) ? state.chosen : elements.keys().next().value) ? 0 : -1);
    }
    for (const { from, to, element } of edges) {
      element.classList.toggle("lit", state.chosen !== null && (from === state.chosen || to === state.chosen));
    }
  }

  // ── moving ───────────────────────────────────────────────────────────────────────────────────────────────────────
  function place() {
    world.setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.scale})`);
    world.classList.toggle("far", state.scale < FAR);
  }
  const whole = () => Math.min(1.2, (view.clientWidth - 24) / bounds.w, (view.clientHeight - 24) / bounds.h);
  function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
    const scale = Math.min(3, Math.max(Math.min(whole(), 0.02), state.scale * factor));
    state.x = x - (x - state.x) * scale / state.scale;
    state.y = y - (y - state.y) * scale / state.scale;
    state.scale = scale;
    place();
  }
  function fit() {
    state.scale = whole();
    state.x = (view.clientWidth - bounds.w * state.scale) / 2;
    state.y = 12;
    place();
  }
  // At first: readable cards, from the inputs on.
  function begin() {
    state.scale = Math.min(1, Math.max(0.6, (view.clientWidth - 24) / bounds.w));
    const box = boxes.get(data.root.items[0]) ?? bounds;
    state.x = view.clientWidth / 2 - (box.x + box.w / 2) * state.scale;
    state.y = 16;
    place();
  }
  function reveal(item, centre) {
    const box = boxes.get(item);
    if (!box) return;
    const left = box.x * state.scale + state.x, top = box.y * state.scale + state.y;
    const outside = left < 0 || top < 0 || left + WIDTH * state.scale > view.clientWidth || top + HEIGHT * state.scale > view.clientHeight;
    if (!outside && !centre) return;
    state.x = view.clientWidth / 2 - (box.x + box.w / 2) * state.scale;
    state.y = view.clientHeight / 2 - (box.y + Math.min(box.h, HEIGHT) / 2) * state.scale;
    place();
  }

  // ── choosing, folding ────────────────────────────────────────────────────────────────────────────────────────────
  function choose(item, focus = true) {
    state.chosen = item;
    mark();
    showPanel();
    if (focus && item !== null) elements.get(item)?.focus({ preventScroll: true });
  }
  function setOpen(items, open, keep) {
    const before = keep !== undefined && boxes.get(keep);
    items.forEach((item) => open ? opened.add(item) : opened.delete(item));
    draw();
    const after = keep !== undefined && boxes.get(keep);
    if (before && after) {  // what was clicked stays where it is
      state.x += (before.x + before.w / 2 - after.x - after.w / 2) * state.scale;
      state.y += (before.y - after.y) * state.scale;
      place();
    }
  }
  function activate(item) {
    if (isBlock(item)) setOpen([item], !opened.has(item), item);
    choose(item);
  }
  function goTo(item, focus = true) {
    setOpen(ancestors(item), true);
    state.scale = Math.max(state.scale, 0.8);
    reveal(item, true);
    choose(item, focus);
  }

  function showPanel() {
    panel.replaceChildren();
    const item = state.chosen;
    if (item === null) {
      html("p", "Choose a node to see what is known about it.", panel, { class: "muted" });
      const list = html("ul", null, panel);
      document.querySelectorAll(".about li").forEach((sentence) => html("li", sentence.textContent, list));
      return;
    }
    const block = isBlock(item);
    html("h2", block ? blockOf(item).name : data.cards[item][0], panel);
    html("p", block ? blockOf(item).about : data.cards[item][1], panel, { class: "muted" });
    const list = html("dl", null, panel);
    const row = (label, text) => { if (text) { html("dt", label, list); html("dd", text, list); } };
    if (block) {
      row("repeated", `${blockOf(item).repeats} blocks of this form`);
      data.modes.forEach((mode) => row(mode.label, mode.blocks[-1 - item][1]));
      html("button", opened.has(item) ? "Fold" : "Unfold", panel, { type: "button" }).onclick = () => activate(item);
    } else {
      const change = data.modes[0]?.key === "change" && data.modes[0].cards[item];
      if (change) row("difference", change[1]);
      data.labels.forEach((label, i) => row(label, data.facts[item][i]));
    }
  }

  // ── colour, search, table ────────────────────────────────────────────────────────────────────────────────────────
  function showLegend() {
    const mode = data.modes[state.mode];
    by("legend").replaceChildren();
    if (!mode) return;
    mode.legend.forEach(([bin, text]) => {
      const entry = html("li", null, by("legend"));
      if (bin >= 0) html("i", null, entry, { class: binClass(bin) }).style.width = `${stripeWidth(bin)}px`;
      html("span", text, entry);
    });
  }
  function colour(mode) {
    state.mode = mode;
    for (const item of elements.keys()) colourCard(item);
    showLegend();
  }
  const kernels = data.labels.indexOf("kernel");
  function search(text) {
    const wanted = text.trim().toLowerCase(), list = by("matches");
    const matches = (i) => [data.cards[i][0], data.cards[i][1], kernels < 0 ? "" : data.facts[i][kernels]]
      .some((field) => field.toLowerCase().includes(wanted));
    const found = wanted ? data.cards.map((_, i) => i).filter(matches) : [];
    state.found = new Set(found);
    list.replaceChildren();
    found.slice(0, 40).forEach((item) => {
      const entry = html("li", null, list);
      html("button", `${data.cards[item][1]} ${shorten(data.cards[item][0], 60)}`, entry, { type: "button" }).onclick = () => goTo(item);
    });
    by("count").textContent = wanted ? `${found.length} of ${data.cards.length} match${found.length > 40 ? "; the first 40 are listed" : ""}` : "";
    mark();
    return found;
  }
  function fillTable() {
    const table = by("table");
    if (table.rows.length) return;
    const head = html("tr", null, table.createTHead());
    ["node", "operator", ...data.labels].forEach((label) => html("th", label, head, { scope: "col" }));
    const body = table.createTBody();
    data.cards.forEach(([name, operator], item) => {
      const row = html("tr", null, body);
      const go = html("button", name, html("th", null, row, { scope: "row" }), { type: "button" });
      go.onclick = () => { goTo(item); view.scrollIntoView({ block: "nearest" }); };
      [operator, ...data.facts[item]].forEach((text) => html("td", text, row));
    });
  }

  // ── pointer and keys ─────────────────────────────────────────────────────────────────────────────────────────────
  const pointers = new Map();
  let dragged = 0;
  const itemAt = (target) => {
    const element = target.closest?.(".card");
    for (const [item, one] of elements) if (one === element) return item;
    return null;
  };
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a.x - b.x, a.y - b.y) || 1, x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  const local = (event) => { const box = view.getBoundingClientRect(); return { x: event.clientX - box.left, y: event.clientY - box.top }; };
  view.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, local(event)); dragged = pointers.size > 1 ? 99 : 0; });
  view.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId), now = local(event);
    if (!last) return;
    if (!event.buttons) { release(event); return; }  // it was released elsewhere
    const pinch = pointers.size === 2 && spread();
    pointers.set(event.pointerId, now);
    if (pinch) {
      const next = spread();
      state.x += next.x - pinch.x; state.y += next.y - pinch.y;
      zoom(next.distance / pinch.distance, next.x, next.y);
      return;
    }
    dragged += Math.hypot(now.x - last.x, now.y - last.y);
    if (dragged > 4) { view.setPointerCapture?.(event.pointerId); view.classList.add("moving"); }
    state.x += now.x - last.x; state.y += now.y - last.y;
    place();
  });
  const release = (event) => { pointers.delete(event.pointerId); view.classList.remove("moving"); };
  view.addEventListener("pointerup", release);
  view.addEventListener("pointercancel", release);
  view.addEventListener("click", (event) => {
    if (dragged > 4) return;
    const item = itemAt(event.target);
    if (item !== null) activate(item);
  });
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = local(event);
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), at.x, at.y);
  }, { passive: false });

  function beside(item, step) {
    const row = boxes.get(item).row.filter((entry) => entry.item !== null && entry.item !== undefined);
    return row[row.findIndex((entry) => entry.item === item) + step]?.item;
  }
  function moveTo(item) {
    if (item === undefined) return;
    choose(item);
    reveal(item, false);
  }
  view.addEventListener("keydown", (event) => {
    const item = itemAt(event.target);
    const near = item === null ? null : neighbours.get(item);
    const inner = item !== null && isBlock(item) && opened.has(item) ? blockOf(item).items[0] : undefined;
    const actions = {
      ArrowDown: () => moveTo(inner ?? near?.behind[0] ?? parent.get(item) ?? undefined),
      ArrowUp: () => moveTo(near?.before[0] ?? parent.get(item)),
      ArrowLeft: () => moveTo(beside(item, -1)),
      ArrowRight: () => moveTo(beside(item, 1)),
      Enter: () => activate(item),
      " ": () => activate(item),
      Escape: () => { const block = isBlock(item) && opened.has(item) ? item : parent.get(item); if (block !== undefined) { setOpen([block], false, block); choose(block); } },
    };
    if (item !== null && actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, button, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = { "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": fit, "/": () => by("search").focus() };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });

  // ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────
  data.modes.forEach((mode, i) => html("option", mode.label, by("colour"), { value: i }));
  by("colour").onchange = (event) => colour(Number(event.target.value));
  by("search").oninput = (event) => search(event.target.value);
  by("search").onkeydown = (event) => {
    const found = [...state.found];
    if (event.key === "Enter" && found.length) goTo(found[(found.indexOf(state.chosen) + 1) % found.length], false);
  };
  by("closer").onclick = () => zoom(1.25);
  by("farther").onclick = () => zoom(0.8);
  by("fit").onclick = fit;
  by("unfold").onclick = () => { setOpen(data.blocks.map((_, i) => -1 - i), true); begin(); };
  by("refold").onclick = () => { opened.clear(); state.chosen = null; draw(); begin(); showPanel(); };
  [by("unfold"), by("refold")].forEach((button) => { button.hidden = !data.blocks.length; });
  by("nodes").addEventListener("toggle", fillTable);
  // On paper: the drawing as it is unfolded, as large as a page.
  window.addEventListener("beforeprint", () => {
    view.setAttribute("viewBox", `-4 -4 ${bounds.w + 12} ${bounds.h + 12}`);
    world.removeAttribute("transform");
    world.classList.remove("far");
  });
  window.addEventListener("afterprint", () => { view.removeAttribute("viewBox"); place(); });
  document.querySelector(".skip").addEventListener("click", () => { by("nodes").open = true; });
  draw();
  showLegend();
  showPanel();
  begin();
})();
