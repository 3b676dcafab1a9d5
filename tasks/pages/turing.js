"use strict";

// A subject's page. The server says where the session is; this draws it and sends answers back.
// Nothing is kept here that a reload would lose but an answer that is on its way.

const LOCKOUT_MS = 200; // no one has seen an image sooner: a second press was meant for the last
const RETRY_MS = 1000;
const SECTIONS = ["welcome", "trial", "rest", "done"];
const CHOICES = ["real", "made"];
const KEYS = { f: "real", ArrowLeft: "real", j: "made", ArrowRight: "made" };

const at = (id) => document.getElementById(id);
let state = null; // what the server said last
let sending = false;

// For how long the image has been seen: stops while the page is hidden or a break is taken.
const clock = {
  seenMs: 0,
  since: null,
  reset() { this.seenMs = 0; this.since = null; },
  start() { this.since ??= performance.now(); },
  stop() { this.seenMs = this.read(); this.since = null; },
  read() { return this.seenMs + (this.since === null ? 0 : performance.now() - this.since); },
};

function show(section) {
  for (const id of SECTIONS) at(id).hidden = id !== section;
  document.body.dataset.section = section;
}

function enter(next) {
  state = next;
  clock.reset();
  accept(false);
  const total = state.total;
  at("progress").hidden = state.phase === "welcome";
  at("count").textContent = `${state.answered ?? total} of ${total}`;
  at("bar").max = total;
  at("bar").value = state.answered ?? total;
  if (state.phase === "welcome") welcome();
  else if (state.phase === "done") thank();
  else if (state.rest) rest();
  else look();
}

function welcome() {
  at("total").textContent = state.total;
  show("welcome");
  at("code").focus();
}

function look() {
  show("trial");
  draw();
  at("said").textContent = `Image ${state.answered + 1} of ${state.total}`;
  // The frame after next is the first that can follow the paint.
  requestAnimationFrame(() => requestAnimationFrame(() => document.hidden || see()));
}

function see() {
  clock.start();
  const trial = state.trial;
  setTimeout(() => accept(trial === state.trial), LOCKOUT_MS);
}

function accept(yes) {
  for (const id of CHOICES) at(id).ariaDisabled = String(!yes);
}

function pause() {
  if (!sending) rest(); // the next image is about to come
}

function rest() {
  clock.stop();
  show("rest");
  const left = state.total - state.answered;
  at("rest-text").textContent = `${state.answered} of ${state.total} done, ${left} to go. ` +
    "The question stays the same.";
  at("rest").querySelector("h2").focus();
}

function thank() {
  show("done");
  at("scores").replaceChildren(...state.scores.map(([right, answered], part) => {
    const item = document.createElement("li");
    const which = state.scores.length > 1 ? `Part ${part + 1}: ` : "";
    item.textContent = `${which}${right} of ${answered} right; guessing gives about half.`;
    return item;
  }));
  at("done").querySelector("h2").focus();
}

function draw() {
  const { width, height, channels } = state;
  const bytes = Uint8Array.from(atob(state.pixels), (character) => character.charCodeAt(0));
  const image = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let part = 0; part < 3; part++) {
      image.data[4 * pixel + part] = bytes[channels * pixel + (part % channels)];
    }
    image.data[4 * pixel + 3] = 255;
  }
  const canvas = at("image");
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("aria-label", `Image ${state.answered + 1}, to be judged by eye`);
  canvas.getContext("2d").putImageData(image, 0, 0);
  enlarge();
}

// By a whole number of the screen's own pixels, so that every pixel of every image is one square.
function enlarge() {
  const ratio = window.devicePixelRatio;
  const room = { width: at("frame").clientWidth, height: window.innerHeight * 0.5 };
  const factor = Math.min(room.width / state.width, room.height / state.height) * ratio;
  const whole = Math.max(1, Math.floor(factor));
  at("image").style.width = `${(state.width * whole) / ratio}px`;
  at("image").style.height = `${(state.height * whole) / ratio}px`;
}

async function answer(said) {
  if (at(said).ariaDisabled === "true") return;
  accept(false);
  clock.stop();
  const reaction = Math.min(clock.read(), 3_600_000);
  await send("api/answers", { trial: state.trial, said, reaction_ms: reaction });
}

// Sends until the server has it: an answer counts once, however often it arrives.
async function send(path, body) {
  sending = true;
  try {
    for (;;) {
      const reply = await post(path, body);
      if (reply !== null && reply.status < 500) return await take(reply);
      trouble("The server does not answer. Your answer is kept here and sent again; please leave " +
        "this page open.");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  } finally {
    sending = false;
  }
}

async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-CSRF-Token": state.csrf };
  try {
    return await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  } catch {
    return null;
  }
}

async function take(reply) {
  const told = await reply.json();
  if (reply.ok) {
    trouble(null);
    enter(told);
  } else if (reply.status === 403) {
    await open(); // another tab has begun another session
  } else {
    trouble(told.detail);
  }
}

async function open() {
  try {
    const reply = await fetch("api/session");
    if (!reply.ok) throw new Error(reply.statusText);
    trouble(null);
    enter(await reply.json());
  } catch {
    trouble("The server does not answer. Trying again…");
    setTimeout(open, RETRY_MS);
  }
}

function trouble(text) {
  at("trouble").hidden = text === null;
  at("trouble").textContent = text ?? "";
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const section = document.body.dataset.section;
  if (section === "trial" && key in KEYS) answer(KEYS[key]);
  else if (section === "trial" && key === "b") pause();
  else if (section === "rest" && key === "Enter") look();
  else return;
  event.preventDefault();
});
document.addEventListener("visibilitychange", () => {
  if (document.body.dataset.section !== "trial") return;
  if (document.hidden) clock.stop();
  else see();
});
window.addEventListener("resize", () => state?.phase === "trial" && enlarge());
at("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!sending) send("api/subjects", { code: at("code").value });
});
at("real").addEventListener("click", () => answer("real"));
at("made").addEventListener("click", () => answer("made"));
at("pause").addEventListener("click", pause);
at("continue").addEventListener("click", look);
at("leave").addEventListener("click", () => sending || send("api/leave", {}));
open();
