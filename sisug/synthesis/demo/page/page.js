// The page of `sisug demo`: a canvas of class numbers (or levels of gray) that is sent as it is, one byte a pixel.
"use strict";

const $ = (id) => document.getElementById(id);
const KINDS = {
  seg: ["Mask", "Paint the parts."],
  scribble: ["Scribble", "A few strokes of each part; white is left to the model."],
  sketch: ["Sketch", "Draw lines with a pen."],
  edges: ["Edges", "Draw the contours."],
  exemplar: ["Like a picture", "No drawing: the layout of a sample, or of a picture of yours."],
};
const SIZES = [3, 6, 12, 24, 48]; // of 256
const PEN = [1, 2, 4];
const MOST_UNDO = 60;
const MOST_BYTES = 12 * 2 ** 20; // the server refuses more
const TILES = 8;
const FIRST = 2; // style and layout of the first picture

const state = { model: "", kind: "", tool: "brush", size: { label: 12, line: 4 }, value: {}, truncation: 0.7, mix: "", like: "1", tiles: [], chosen: null };
const sheets = new Map(); // canvas, undo and redo of each model and kind
let sheet = null;

// ---------------------------------------------------------------- asking the server

async function ask(what, more = {}, body = new Uint8Array()) {
  const query = new URLSearchParams({ model: state.model, kind: state.kind, style: state.chosen.name, truncation: state.truncation, mix: state.mix, like: state.like, ...more });
  let answer;
  try {
    answer = await fetch(`/${what}?${query}`, { method: "POST", body, headers: { "content-type": "application/octet-stream" } });
  } catch {
    throw new Error("The demo does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 503) throw new Error("The demo has too many visitors. Try again in a minute.");
  let error;
  try { ({ error } = await answer.json()); } catch { throw new Error("The demo could not answer. Try again."); }
  const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + ".";
  throw new Error(`${sentence(error.state)} ${sentence(error.cause)} ${sentence(error.remedy)}`);
}

function say(text, kind = "") {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  $("say").replaceChildren(line);
}

function notes(list) {
  $("say").replaceChildren(...list.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
}

// One request at a time; strokes drawn meanwhile are in the next one.
let wanted = 0, done = 0, busy = false, quiet = "";
function follow(keep = "") { quiet = keep; wanted += 1; void pump(); }
async function pump() {
  if (busy) return;
  busy = true;
  const slow = setTimeout(() => { $("wait").hidden = false; }, 600);
  while (done !== wanted) {
    const now = wanted, { model, kind } = state;
    if (!sheet) { done = now; continue; } // another kind is being loaded, and asks by itself
    try {
      const answer = await (await ask("image", {}, kind === "exemplar" ? undefined : sheet.pixels.slice())).json();
      if (model === state.model && kind === state.kind) {
        $("picture").src = answer.image;
        document.body.dataset.images = Number(document.body.dataset.images || 0) + 1;
        notes([...(quiet ? [quiet] : []), ...answer.warnings]);
      }
    } catch (error) {
      say(error.message, "bad");
    }
    done = now;
  }
  clearTimeout(slow);
  $("wait").hidden = true;
  busy = false;
}

// ---------------------------------------------------------------- the canvas

const canvas = $("canvas"), context = canvas.getContext("2d");
let surface = null, painting = false;

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    if (!sheet || !sheet.pixels) return;
    const colors = new Uint32Array(surface.data.buffer), { pixels, table } = sheet;
    for (let i = 0; i < pixels.length; i++) colors[i] = table[pixels[i]];
    context.putImageData(surface, 0, 0);
  });
}

function tableOf(info) {
  const table = new Uint32Array(256);
  const color = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  if (info.labels) {
    info.labels.forEach((label, number) => { table[number] = color(label.color); });
    table[info.blank.number] = color(info.blank.color);
  } else for (let i = 0; i < 256; i++) table[i] = color([i, i, i]);
  return table;
}

const lines = () => !sheet.info.labels;
const empty = () => (lines() ? 255 : state.kind === "scribble" ? sheet.info.blank.number : 0);
const ink = () => (state.tool === "eraser" ? empty() : lines() ? 0 : state.value[state.model] ?? 0);
const sizeName = () => (lines() ? "line" : "label");
const diameter = () => Math.max(1, (state.size[sizeName()] * (lines() && state.tool === "eraser" ? 4 : 1) * sheet.info.canvas) / 256);

function stamp(x, y, value) {
  const size = sheet.info.canvas, radius = diameter() / 2, { pixels } = sheet;
  for (let row = Math.max(0, Math.ceil(y - radius - .5)); row <= Math.min(size - 1, Math.floor(y + radius - .5)); row++) {
    const half = Math.sqrt(Math.max(0, radius * radius - (row + .5 - y) ** 2));
    const first = Math.max(0, Math.round(x - half)), last = Math.min(size, Math.round(x + half));
    if (last > first) pixels.fill(value, row * size + first, row * size + last);
  }
}

function stroke([x0, y0], [x1, y1]) {
  const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(.5, diameter() / 4))), value = ink();
  for (let i = 0; i <= steps; i++) stamp(x0 + ((x1 - x0) * i) / steps, y0 + ((y1 - y0) * i) / steps, value);
}

function fill([x, y]) {
  const size = sheet.info.canvas, { pixels } = sheet;
  const start = Math.floor(y) * size + Math.floor(x), from = pixels[start], to = ink();
  if (from === to) return;
  const open = [start];
  pixels[start] = to;
  while (open.length) {
    const at = open.pop(), column = at % size;
    for (const next of [at - size, at + size, column ? at - 1 : -1, column < size - 1 ? at + 1 : -1])
      if (next >= 0 && next < pixels.length && pixels[next] === from) { pixels[next] = to; open.push(next); }
  }
}

function remember() {
  sheet.undo.push(sheet.pixels.slice());
  if (sheet.undo.length > MOST_UNDO) sheet.undo.shift();
  sheet.redo.length = 0;
}

function changed() { paint(); marks(); follow(); }

function step(from, to) {
  if (!from.length) return;
  to.push(sheet.pixels.slice());
  sheet.pixels.set(from.pop());
  changed();
}

function put(bytes, keep = "") {
  if (sheet.ready) remember();
  sheet.pixels.set(bytes);
  sheet.ready = true;
  paint(); marks(); follow(keep);
}

const place = (event) => {
  const box = canvas.getBoundingClientRect(), scale = sheet.info.canvas / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};

let last = null;
canvas.addEventListener("pointerdown", (event) => {
  if (!sheet || !sheet.ready) return;
  const at = place(event);
  if (event.button === 2) { pick(at); return; }
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  remember();
  if (state.tool === "bucket") fill(at); else { stroke(at, at); last = at; }
  changed();
});
canvas.addEventListener("pointermove", (event) => {
  if (!sheet) return;
  circle(event);
  if (!last) return;
  for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
    const at = place(each);
    stroke(last, at);
    last = at;
  }
  paint(); follow();
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
canvas.addEventListener("pointerleave", () => { $("cursor").hidden = true; });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());

function pick([x, y]) { // the class under the pointer, as right buttons do in paint programs
  if (lines()) return;
  const number = sheet.pixels[Math.floor(y) * sheet.info.canvas + Math.floor(x)];
  if (number < sheet.info.labels.length) { state.value[state.model] = number; state.tool = "brush"; marks(); }
}

function circle(event) {
  const cursor = $("cursor"), box = canvas.getBoundingClientRect(), width = Math.max(4, (diameter() * box.width) / sheet.info.canvas);
  cursor.hidden = state.tool === "bucket" || event.pointerType === "touch";
  Object.assign(cursor.style, { width: `${width}px`, height: `${width}px`, left: `${event.clientX - box.left}px`, top: `${event.clientY - box.top}px` });
}

// ---------------------------------------------------------------- what is pressed, and what can be

function pressed(button, on) { button.setAttribute("aria-pressed", on ? "true" : "false"); }

function button(text, act, title = "") {
  const made = Object.assign(document.createElement("button"), { textContent: text, title });
  made.addEventListener("click", act);
  return made;
}

function marks() {
  const drawing = state.kind !== "exemplar";
  for (const each of $("kinds").querySelectorAll("button")) pressed(each, each.dataset.kind === state.kind);
  for (const each of document.querySelectorAll("[data-tool]")) pressed(each, each.dataset.tool === state.tool);
  for (const id of ["tools", "starts", "canvas", "download-drawing"]) $(id).hidden = !drawing;
  for (const id of ["like", "likes"]) $(id).hidden = drawing;
  document.querySelector("main").classList.toggle("no-palette", !(drawing && sheet?.info.labels));
  $("palette").hidden = !(drawing && sheet?.info.labels);
  if (!sheet) return;
  $("start-sample").disabled = $("start-photo").disabled = !sheet.info.samples;
  $("undo").disabled = !sheet.undo.length;
  $("redo").disabled = !sheet.redo.length;
  canvas.classList.toggle("fill", state.tool === "bucket");
  for (const each of $("palette").querySelectorAll("button"))
    pressed(each, Number(each.dataset.number) === (state.value[state.model] ?? 0) && state.tool !== "eraser");
  for (const each of $("sizes").children) pressed(each, Number(each.dataset.size) === state.size[sizeName()]);
  $("mixing").hidden = !sheet.info.layered;
}

function palette() {
  if (!sheet.info.labels) return;
  const unknown = sheet.info.labels.some((label) => !label.known);
  $("palette").replaceChildren(
    ...sheet.info.labels.map((label, number) => {
      const made = button("", () => { state.value[state.model] = number; if (state.tool === "eraser") state.tool = "brush"; marks(); },
        label.known ? `Draw ${label.name}` : `This model never saw ${label.name} labeled: it guesses what belongs there`);
      const swatch = document.createElement("i");
      swatch.style.background = `rgb(${label.color.join(" ")})`;
      made.append(swatch, label.known ? label.name : `${label.name} *`);
      made.dataset.number = number;
      return made;
    }),
    ...(unknown ? [Object.assign(document.createElement("small"), { textContent: "* no label showed it: the model guesses" })] : []),
  );
  if (state.value[state.model] === undefined) {
    const hair = sheet.info.labels.findIndex((label) => label.name === "hair");
    state.value[state.model] = hair > 0 ? hair : Math.min(1, sheet.info.labels.length - 1);
  }
}

function sizes() {
  $("sizes").replaceChildren(...(lines() ? PEN.map((each) => each * 2) : SIZES).map((size) => {
    const made = button("", () => { state.size[sizeName()] = size; marks(); }, `${lines() ? "Pen" : "Brush"} of ${size} pixels`);
    const dot = document.createElement("i");
    dot.style.width = dot.style.height = `${4 + size * (lines() ? 1 : .36)}px`;
    made.dataset.size = size;
    made.append(dot);
    return made;
  }));
}

// ---------------------------------------------------------------- models, kinds, starts

async function choose(model, kind) {
  const other = model !== state.model;
  Object.assign(state, { model, kind });
  sheet = last = null;
  if (other) { state.like = "1"; state.mix = ""; await styles(); }
  const key = `${model}/${kind}`;
  $("kinds").lastChild.textContent = KINDS[kind][1];
  try {
    if (!sheets.has(key)) {
      say("Loading…", "busy");
      const info = await (await ask("describe")).json();
      sheets.set(key, { info, table: tableOf(info), pixels: new Uint8Array(info.canvas ** 2), undo: [], redo: [], ready: false });
    }
  } catch (error) {
    say(error.message, "bad");
    return;
  }
  if (key !== `${state.model}/${state.kind}`) return; // another was chosen meanwhile
  sheet = sheets.get(key);
  canvas.width = canvas.height = sheet.info.canvas;
  surface = context.createImageData(sheet.info.canvas, sheet.info.canvas);
  palette(); sizes(); marks();
  if (kind === "exemplar") { await like(); return; }
  if (sheet.ready) { paint(); follow(); } else if (sheet.info.samples) await sample(FIRST);
  else { sheet.pixels.fill(empty()); sheet.ready = true; paint(); say("Draw on the canvas.", "busy"); }
}

async function put_from(what, more, body, wait, keep = "") {
  const there = sheet;
  say(wait, "busy");
  try {
    const bytes = new Uint8Array(await (await ask(what, more, body)).arrayBuffer());
    if (there === sheet) put(bytes, keep);
  } catch (error) {
    say(error.message, "bad");
    if (!there.ready) { there.pixels.fill(empty()); there.ready = true; paint(); }
  }
}

const sample = (seed) => put_from("sample", { style: seed, mix: "" }, undefined, "Drawing a sample…");

async function like() {
  try {
    const answer = await (await ask("like")).json();
    $("like").src = answer.image;
    follow();
  } catch (error) { say(error.message, "bad"); }
}

const random = () => Math.floor(Math.random() * 100000);

let taker = null;
function file(then) { taker = then; $("file").value = ""; $("file").click(); }
$("file").addEventListener("change", () => { const [given] = $("file").files; if (given && taker) void take(given, taker); });

async function take(given, then) {
  if (given.size > MOST_BYTES) { say(`Your picture has ${Math.round(given.size / 2 ** 20)} MB. At most ${MOST_BYTES / 2 ** 20} MB are read. Make it smaller, and try again.`, "bad"); return; }
  await then(given);
}

const photo = (given) => put_from("photo", {}, given, "Finding its parts…");
const drawing = (given) => put_from("drawing", {}, given, "Reading your drawing…");

async function picture(given, use) {
  say("Looking for the generator's nearest picture. This takes some seconds; you can draw on.", "busy");
  try {
    const { model } = state, found = await (await ask("picture", {}, given)).json();
    if (model === state.model) use(found);
  } catch (error) { say(error.message, "bad"); }
}

$("start-sample").addEventListener("click", () => sample(random()));
$("start-photo").addEventListener("click", () => file(photo));
$("start-drawing").addEventListener("click", () => file(drawing));
$("like-sample").addEventListener("click", () => { state.like = String(random()); void like(); });
$("like-picture").addEventListener("click", () => file((given) => picture(given, (found) => { state.like = found.name; void like(); })));

for (const name of ["dragover", "dragleave", "drop"]) $("frame").addEventListener(name, (event) => {
  event.preventDefault();
  $("frame").classList.toggle("drop", name === "dragover");
  const given = name === "drop" && event.dataTransfer.files[0];
  if (given && state.kind !== "exemplar") void take(given, drawing);
});

// ---------------------------------------------------------------- styles

async function styles() {
  state.tiles = Array.from({ length: TILES }, (_, seed) => ({ name: String(seed), text: `seed ${seed}`, locked: false }));
  state.chosen = state.tiles[FIRST];
  tiles();
}

function tiles() {
  $("tiles").replaceChildren(...state.tiles.map((tile) => {
    const box = Object.assign(document.createElement("div"), { className: "tile" });
    const image = Object.assign(document.createElement("img"), { alt: "" });
    const main = button("", () => { use(tile); }, `Use the style of ${tile.text}`);
    main.append(image, tile.text);
    pressed(main, tile === state.chosen);
    const lock = button(tile.locked ? "locked" : "lock", (event) => { event.stopPropagation(); tile.locked = !tile.locked; tiles(); }, "Shuffle keeps locked styles");
    lock.className = "lock";
    pressed(lock, tile.locked);
    box.append(main, lock);
    void show(tile, image);
    return box;
  }));
  $("mix").replaceChildren(new Option("itself", ""), ...state.tiles.filter((tile) => !tile.picture).map((tile) => new Option(tile.text, tile.name, false, tile.name === state.mix)));
  $("seed").value = state.chosen.picture ? "" : state.chosen.name;
}

async function show(tile, image) {
  if (tile.picture) { image.src = tile.picture; return; }
  const key = `${state.model} ${state.truncation}`;
  if (tile.key !== key) {
    tile.key = key;
    const kind = state.kind === "exemplar" ? "exemplar" : state.kind;
    tile.url = ask("tile", { kind, style: tile.name, mix: "" }).then((answer) => answer.blob()).then((blob) => {
      if (tile.old) URL.revokeObjectURL(tile.old);
      return (tile.old = URL.createObjectURL(blob));
    });
  }
  try { image.src = await tile.url; } catch { tile.key = ""; }
}

function use(tile, keep = "") { state.chosen = tile; tiles(); follow(keep); }

function add(tile, keep = "") { // in the place of the last one that may go
  const places = state.tiles.map((each, place) => (each.locked ? -1 : place)).filter((place) => place >= 0);
  const chosen = places.length ? places[places.length - 1] : TILES - 1;
  state.tiles[chosen] = tile;
  use(tile, keep);
}

$("shuffle").addEventListener("click", () => {
  const place = state.tiles.indexOf(state.chosen);
  state.tiles = state.tiles.map((tile) => {
    if (tile.locked) return tile;
    const seed = random();
    return { name: String(seed), text: `seed ${seed}`, locked: false };
  });
  if (state.mix && !state.tiles.some((tile) => tile.name === state.mix)) state.mix = "";
  use(state.tiles[place] ?? state.tiles[0]);
});
$("style-picture").addEventListener("click", () => file((given) => picture(given, (found) => {
  add({ name: found.name, text: "your picture", picture: found.image, locked: true }, found.found);
})));
$("seed").addEventListener("change", () => {
  const seed = Math.min(2147483647, Math.max(0, Math.floor(Number($("seed").value) || 0)));
  const there = state.tiles.find((tile) => tile.name === String(seed));
  if (there) use(there); else add({ name: String(seed), text: `seed ${seed}`, locked: false });
});
$("truncation").addEventListener("input", () => { state.truncation = Number($("truncation").value); follow(); });
$("truncation").addEventListener("change", () => { tiles(); if (state.kind === "exemplar") void like(); });
$("mix").addEventListener("change", () => { state.mix = $("mix").value; follow(); });

// ---------------------------------------------------------------- buttons and keys

for (const each of document.querySelectorAll("[data-tool]")) each.addEventListener("click", () => { state.tool = each.dataset.tool; marks(); });
$("undo").addEventListener("click", () => step(sheet.undo, sheet.redo));
$("redo").addEventListener("click", () => step(sheet.redo, sheet.undo));
$("clear").addEventListener("click", () => { remember(); sheet.pixels.fill(empty()); paint(); marks(); if (state.kind === "seg") follow(); else say("Draw on the canvas.", "busy"); });

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=number], select") || state.kind === "exemplar" || !sheet) return;
  const key = event.key.toLowerCase(), command = event.ctrlKey || event.metaKey;
  if (command && key === "z" && !event.shiftKey) step(sheet.undo, sheet.redo);
  else if (command && (key === "y" || key === "z")) step(sheet.redo, sheet.undo);
  else if (!command && "bfe".includes(key)) { state.tool = { b: "brush", f: "bucket", e: "eraser" }[key]; marks(); }
  else return;
  event.preventDefault();
});

for (const each of document.querySelectorAll("[data-download]")) each.addEventListener("click", async () => {
  try {
    const answer = await ask(`download-${each.dataset.download}`, {}, state.kind === "exemplar" ? undefined : sheet.pixels.slice());
    const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition"))[1];
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await answer.blob()), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  } catch (error) { say(error.message, "bad"); }
});

async function open() {
  const { models } = await (await fetch("/about")).json();
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.name)));
  const kindsOf = (name) => models.find((model) => model.name === name).kinds;
  const enter = (name, kind) => {
    $("kinds").replaceChildren(...kindsOf(name).map((each) => {
      const made = button(KINDS[each][0], () => choose(name, each), KINDS[each][1]);
      made.dataset.kind = each;
      return made;
    }), document.createElement("span"));
    return choose(name, kindsOf(name).includes(kind) ? kind : kindsOf(name)[0]);
  };
  $("model").addEventListener("change", () => enter($("model").value, state.kind));
  await enter(models[0].name, "seg");
}

open().catch((error) => say(error.message, "bad"));
