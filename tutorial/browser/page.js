"use strict";
// The page: it loads the files, shows the cells' output, and leaves the work to a worker.

const cells = [...document.querySelectorAll(".cell")];
const state = document.getElementById("state");
const runAll = document.getElementById("run-all");
const restart = document.getElementById("restart");
const names = JSON.parse(document.getElementById("files").textContent);
const files = new Map();
let worker, running = null, waiting = [];

// Each file is a script that calls this with its name and its content.
function receive(name, packed) {
  files.set(name, packed);
}

function load(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `files/${encodeURIComponent(name)}.js`;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`cannot read ${script.src}; build the page again`));
    document.head.append(script);
  });
}

async function unpack(name) {
  const bytes = Uint8Array.from(atob(files.get(name)), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  state.textContent = "Python is loading. You can read on meanwhile.";
  [...cells.map(runOf), runAll].forEach((button) => { button.disabled = true; });
  const contents = new Map();
  for (const name of names) {
    if (!files.has(name)) await load(name);
    contents.set(name, await unpack(name));
  }
  const source = document.getElementById("worker").textContent;
  worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  worker.onmessage = (event) => handlers[event.data.type](event.data);
  worker.onerror = (event) => { state.textContent = `Python cannot start: ${event.message}`; };
  worker.postMessage({ type: "start", contents }, [...contents.values()]);
}

const runOf = (cell) => cell.querySelector(".run");
const outputOf = (cell) => cell.querySelector(".output");

function run(chosen) {
  waiting.push(...chosen);
  if (running === null) runNext();
}

function runNext() {
  running = waiting.shift() ?? null;
  cells.forEach((cell) => cell.classList.toggle("running", cell === running));
  restart.disabled = false;
  state.textContent = running === null ? "Python is ready." : "Running.";
  if (running === null) return;
  outputOf(running).replaceChildren();
  outputOf(running).hidden = false;
  // Not textContent: a browser may end an edited line with an element.
  worker.postMessage({ type: "run", code: running.querySelector(".code").innerText });
}

// Text goes to the last block of text, so that lines printed one by one stand together.
function showText(text, kind) {
  let last = outputOf(running).lastElementChild;
  if (last?.className !== kind) {
    last = document.createElement("pre");
    last.className = kind;
    outputOf(running).append(last);
  }
  last.append(text);
}

function showElement(tag, attributes) {
  outputOf(running).append(Object.assign(document.createElement(tag), attributes));
}

const handlers = {
  ready() {
    [...cells.map(runOf), runAll].forEach((button) => { button.disabled = false; });
    state.textContent = "Python is ready.";
  },
  failed({ text }) { state.textContent = `Python cannot start: ${text}`; },
  text({ text }) { showText(text, "printed"); },
  html({ html }) { showElement("div", { innerHTML: html }); },
  picture({ data }) { showElement("img", { src: `data:image/png;base64,${data}`, alt: "Figure" }); },
  error({ text }) {
    showText(text, "error");
    waiting = [];
  },
  done() { runNext(); },
};

cells.forEach((cell, place) => {
  runOf(cell).onclick = () => run([cell]);
  cell.querySelector(".code").onkeydown = (event) => {
    if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      if (!runOf(cell).disabled) run([cell]);
      cells[place + 1]?.querySelector(".code").focus();
    }
  };
});
runAll.onclick = () => run(cells);
restart.onclick = () => {
  worker.terminate();
  [running, waiting] = [null, []];
  restart.disabled = true;
  cells.forEach((cell) => {
    cell.classList.remove("running");
    outputOf(cell).hidden = true;
  });
  start();
};
start();
