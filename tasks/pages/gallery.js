"use strict";

// Only the cards in view are in the page. Their images are cut from sprite sheets, which are
// decoded when one of their images comes in view and forgotten when many others have since.

const MAX_SHEETS = 600;
const MAX_DECODING = 4;
const GAP = 10;
const COLUMN_GAP = 2;
const CAPTION = 40; // two lines
const LINES_BEYOND = 2;
const ZOOMS = [0.5, 1, 2, 3, 4, 6];

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const imagesPerSheet = data.sheetSide ** 2;
const sheets = new Map(); // name -> ImageBitmap, the one used longest ago first
const decoding = new Set();
const cards = new Map(); // place in the order -> card
let order = []; // rows, filtered and sorted
let layout = null;
let renderAsked = false;

function choose() {
  const figure = data.figures[at("sort").value];
  order = [...Array(data.numRows).keys()].filter(isInRange);
  if (figure) {
    const sign = at("largest").checked ? -1 : 1;
    const key = (row) => (figure.values[row] === null ? Infinity : sign * figure.values[row]);
    order.sort((a, b) => key(a) - key(b) || a - b); // what is not known comes last
  }
  at("largest").disabled = !figure;
  at("count").textContent = `${order.length} of ${data.numRows} samples`;
  arrange();
}

function isInRange(row) {
  if (!data.pitchYaw) return true;
  return ["pitch", "yaw"].every((axis, index) => {
    const from = at(`${axis}-from`).valueAsNumber;
    const to = at(`${axis}-to`).valueAsNumber;
    const angle = data.pitchYaw[row][index];
    return !(angle < from) && !(angle > to); // an empty field is NaN and limits nothing
  });
}

function cardWidth(zoom) {
  return data.columns.length * (data.width * zoom + COLUMN_GAP) - COLUMN_GAP;
}

function arrange() {
  const zoom = Number(at("zoom").value);
  const width = cardWidth(zoom);
  const perLine = Math.max(1, Math.floor((at("list").clientWidth + GAP) / (width + GAP)));
  const lineHeight = data.height * zoom + CAPTION + GAP;
  layout = { zoom, width, perLine, lineHeight };
  at("list").style.height = `${Math.ceil(order.length / perLine) * lineHeight}px`;
  for (const card of cards.values()) card.remove();
  cards.clear();
  render();
}

function render() {
  const { perLine, lineHeight } = layout;
  const top = window.scrollY - at("list").offsetTop;
  const begin = Math.max(0, Math.floor(top / lineHeight) - LINES_BEYOND) * perLine;
  const lines = Math.ceil(window.innerHeight / lineHeight) + 2 * LINES_BEYOND + 1;
  const end = Math.min(order.length, begin + lines * perLine);
  for (const [place, card] of cards) {
    if (place >= begin && place < end) continue;
    card.remove();
    cards.delete(place);
  }
  for (let place = begin; place < end; place++) if (!cards.has(place)) addCard(place);
  decode();
}

function addCard(place) {
  const row = order[place];
  const { width, perLine, lineHeight } = layout;
  const card = document.createElement("figure");
  card.role = "listitem";
  card.ariaPosInSet = place + 1;
  card.ariaSetSize = order.length;
  card.style.width = `${width}px`;
  card.style.height = `${lineHeight - GAP}px`;
  card.style.left = `${(place % perLine) * (width + GAP)}px`;
  card.style.top = `${Math.floor(place / perLine) * lineHeight}px`;
  const images = document.createElement("div");
  images.append(...data.columns.map((column, number) => cell(column, number, row)));
  const caption = document.createElement("figcaption");
  caption.append(lineOf(nameOf(row)), lineOf(figuresOf(row)));
  card.append(images, caption);
  cards.set(place, card);
  at("list").append(card);
}

function lineOf(text) {
  const line = document.createElement("span");
  line.textContent = text;
  return line;
}

function nameOf(row) {
  return data.columns[0].ids[data.columns[0].ofRow[row]];
}

function figuresOf(row) {
  const angles = data.pitchYaw?.[row];
  const gaze = angles && angles[0] !== null ? [`gaze ${angles[0]}°, ${angles[1]}°`] : [];
  const known = data.figures.filter((figure) => figure.values[row] !== null);
  const space = (unit) => (unit === "°" ? unit : ` ${unit}`);
  return [...gaze, ...known.map((f) => `${f.values[row]}${space(f.unit)}`)].join(" · ");
}

function cell(column, number, row) {
  const canvas = document.createElement("canvas");
  const ratio = window.devicePixelRatio;
  canvas.width = Math.round(data.width * layout.zoom * ratio);
  canvas.height = Math.round(data.height * layout.zoom * ratio);
  canvas.style.width = `${data.width * layout.zoom}px`;
  canvas.style.height = `${data.height * layout.zoom}px`;
  canvas.role = "img";
  const index = column.ofRow[row];
  canvas.ariaLabel = index < 0 ? `${column.title}: none of this id`
    : `${column.title}: ${column.ids[index]}`;
  canvas.title = canvas.ariaLabel;
  if (index >= 0) {
    Object.assign(canvas.dataset, { index, column: number, waiting: "" });
    draw(canvas);
  }
  return canvas;
}

// Draws an image if its sheet is at hand.
function draw(canvas) {
  const column = Number(canvas.dataset.column);
  const index = Number(canvas.dataset.index);
  const name = sheetName(canvas);
  const sheet = sheets.get(name);
  if (!sheet) return;
  sheets.delete(name);
  sheets.set(name, sheet); // used last
  const place = index % imagesPerSheet;
  const x = (place % data.sheetSide) * data.width;
  const y = Math.floor(place / data.sheetSide) * data.height;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(sheet, x, y, data.width, data.height, 0, 0, canvas.width, canvas.height);
  if (at("overlay").checked) drawLabels(context, data.columns[column], index);
  delete canvas.dataset.waiting;
}

function sheetName(canvas) {
  return `sheet-${canvas.dataset.column}-${Math.floor(canvas.dataset.index / imagesPerSheet)}`;
}

// The pupil as a ring and the gaze as an arrow from it, as seen by the camera.
function drawLabels(context, column, index) {
  const scale = context.canvas.width / data.width;
  const pupil = column.pupil?.[index];
  const known = pupil && pupil[0] !== null;
  const [x, y] = known ? pupil.map((v) => v * scale)
    : [context.canvas.width / 2, context.canvas.height / 2];
  const gaze = column.gaze?.[index];
  const path = new Path2D();
  if (known) path.arc(x, y, 2 * scale, 0, 2 * Math.PI);
  if (gaze && gaze[0] !== null) addArrow(path, x, y, gaze.map((v) => v * 0.4 * data.width * scale));
  for (const [color, width] of [["#000", 1.2], ["#ffd400", 0.6]]) {
    context.strokeStyle = color;
    context.lineWidth = Math.max(width * scale, 2 * width);
    context.stroke(path);
  }
}

function addArrow(path, x, y, [dx, dy]) {
  const [tipX, tipY] = [x + dx, y + dy];
  const angle = Math.atan2(dy, dx);
  const head = Math.min(0.4 * Math.hypot(dx, dy), 12);
  path.moveTo(x, y);
  path.lineTo(tipX, tipY);
  for (const turn of [2.6, -2.6]) {
    path.moveTo(tipX, tipY);
    path.lineTo(tipX + head * Math.cos(angle + turn), tipY + head * Math.sin(angle + turn));
  }
}

// Decodes the sheets that images in view wait for, a few at a time and off the page's thread.
function decode() {
  for (const canvas of at("list").querySelectorAll("[data-waiting]")) {
    if (decoding.size >= MAX_DECODING) return;
    const name = sheetName(canvas);
    if (decoding.has(name)) continue;
    decoding.add(name);
    const bytes = Uint8Array.from(atob(at(name).textContent), (c) => c.charCodeAt(0));
    createImageBitmap(new Blob([bytes], { type: "image/png" })).then((sheet) => {
      decoding.delete(name);
      sheets.set(name, sheet);
      if (sheets.size > MAX_SHEETS) forgetOldest();
      for (const waiting of at("list").querySelectorAll("[data-waiting]")) draw(waiting);
      decode();
    });
  }
}

function forgetOldest() {
  const [name, sheet] = sheets.entries().next().value;
  sheet.close();
  sheets.delete(name);
}

function redraw() {
  for (const canvas of at("list").querySelectorAll("[data-column]")) {
    canvas.dataset.waiting = "";
    draw(canvas);
  }
  decode();
}

function setUp() {
  const add = (select, value, text) => select.add(new Option(text, value));
  add(at("sort"), "none", "order in the dataset");
  data.figures.forEach((figure, index) => add(at("sort"), index, figure.title));
  for (const zoom of ZOOMS) add(at("zoom"), zoom, `${zoom}×`);
  const room = at("list").clientWidth;
  at("zoom").value = Math.max(ZOOMS[0], ...ZOOMS.filter((z) => z <= 3 && cardWidth(z) <= room));
  at("range").hidden = !data.pitchYaw;
  at("legend").textContent = `Each card, from the left: ${
    data.columns.map((column) => column.title).join(" | ")}. Below: name; ${
    [data.pitchYaw ? "gaze pitch, yaw" : [], data.figures.map((f) => f.title)].flat(2).join("; ")}. ${data.note}`;
  choose();
}

at("controls").addEventListener("change", (event) => {
  if (event.target.id === "overlay") redraw();
  else choose();
});
at("controls").addEventListener("reset", (event) => {
  event.preventDefault(); // the gaze alone
  for (const field of at("range").querySelectorAll("input")) field.value = "";
  choose();
});
at("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key !== "o" || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.matches("select, input[type=number]")) return;
  at("overlay").click();
});
window.addEventListener("scroll", () => {
  if (renderAsked) return;
  renderAsked = true;
  requestAnimationFrame(() => { renderAsked = false; render(); });
}, { passive: true });
window.addEventListener("resize", arrange);
setUp();
