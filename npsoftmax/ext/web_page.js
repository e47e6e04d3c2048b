
// ---------------------------------------------------------------------------------------------
// 1. The model: its numbers are at the end of this file, as base64, column by column

const model = JSON.parse(document.getElementById("model").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const theta = new Float32Array(bytes(model.theta).buffer); // W, then b
const means = bytes(model.means ?? "");
const k = model.classes.length;

// ---------------------------------------------------------------------------------------------
// 2. From a photo to 28 x 28 pixels
//
// The recipe of npsoftmax/ext/photos.py, step by step and to the last bit: whole numbers only, on
// the pixels of the file. The browser's scaling is not used, because it differs between browsers.
// An image is { width, height, data }, one byte per pixel, row by row.

const WORKING_SIDE = 512;
const CELLS = 64;
const TILE = 2048; // phones limit the size of a canvas, so large photos are read in tiles
const MAX_PIXELS = 89478485; // Pillow's limit
const MAX_BYTES = 100 * 2 ** 20;
const LOW_CONTRAST = 32;
const LOW_CONTRAST_TO_SPREAD = 10;

const newImage = (width, height) => ({ width, height, data: new Uint8Array(width * height) });
const sorted = (values) => Float64Array.from(values).sort();
const median = (values) => sorted(values)[Math.floor(values.length / 2)];

/** Step 1: decode a file. Its errors are shown on the page. */
async function decode(file) {
  if (file.size === 0) throw new Error("This file is empty. Choose another picture.");
  if (file.size > MAX_BYTES) throw new Error("This file has more than 100 MiB. Scale it down.");
  // An image element knows the size before anything is decoded.
  const peek = new Image();
  peek.src = URL.createObjectURL(file);
  await new Promise((resolve) => { peek.onload = peek.onerror = resolve; });
  URL.revokeObjectURL(peek.src);
  if (peek.naturalWidth * peek.naturalHeight > MAX_PIXELS) {
    throw new Error("This picture has more than 89 million pixels. Scale it down.");
  }
  try {
    // The levels of the file, without colour management, as in Python.
    return await createImageBitmap(file, {
      imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none",
    });
  } catch {
    throw new Error("This browser cannot read the file as a picture. Save it as JPEG or PNG.");
  }
}

/** Steps 1 to 3: a bitmap or canvas on white, reduced by block means, in grey. */
function greyOf(source) {
  const factor = Math.ceil(Math.max(source.width, source.height) / WORKING_SIDE);
  const grey = newImage(Math.ceil(source.width / factor), Math.ceil(source.height / factor));
  const side = factor * Math.floor(TILE / factor); // whole blocks
  const tile = new OffscreenCanvas(Math.min(side, source.width), Math.min(side, source.height))
    .getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < source.height; top += side) {
    for (let left = 0; left < source.width; left += side) {
      const width = Math.min(side, source.width - left);
      const height = Math.min(side, source.height - top);
      tile.fillStyle = "white";
      tile.fillRect(0, 0, width, height);
      tile.drawImage(source, -left, -top);
      const { data } = tile.getImageData(0, 0, width, height);
      const [red, green, blue] = [0, 1, 2].map((channel) =>
        blockMeans(width, height, factor, (place) => data[4 * place + channel]));
      red.data.forEach((level, i) => {
        const x = left / factor + (i % red.width);
        const y = top / factor + Math.floor(i / red.width);
        grey.data[y * grey.width + x] =
          (19595 * level + 38470 * green.data[i] + 7471 * blue.data[i] + 32768) >> 16;
      });
    }
  }
  return grey;
}

/** The mean of every block of side x side pixels; blocks at the edge may be smaller. */
function blockMeans(width, height, side, levelAt) {
  const means = newImage(Math.ceil(width / side), Math.ceil(height / side));
  means.data.forEach((_, i) => {
    const left = (i % means.width) * side;
    const top = Math.floor(i / means.width) * side;
    const right = Math.min(width, left + side);
    const bottom = Math.min(height, top + side);
    const count = (right - left) * (bottom - top);
    let sum = Math.floor(count / 2); // rounds the quotient half up
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) sum += levelAt(y * width + x);
    }
    // Pillow multiplies by 1 / count with 24 bits, which is sometimes 1 less than the quotient.
    means.data[i] = Math.floor(sum * Math.floor(2 ** 24 / count) / 2 ** 24);
  });
  return means;
}

/** The outermost pixels of an image, each corner once. */
function border({ width, height, data }) {
  return data.filter((_, i) =>
    i % width === 0 || i % width === width - 1 || i < width || i >= width * (height - 1));
}

/** Steps 4 to 8: background, polarity, contrast and thresholds of a grey image. */
function sceneOf(grey) {
  const cell = Math.ceil(Math.max(grey.width, grey.height) / CELLS);
  const cells = blockMeans(grey.width, grey.height, cell, (place) => grey.data[place]);
  const background = median(border(cells));
  const spread = median(Array.from(border(cells), (level) => Math.abs(level - background)));
  const order = sorted(cells.data);
  const n = Math.max(1, Math.floor(order.length / 200));
  const light = order[order.length - n] - background;
  const dark = background - order[n - 1];
  const contrast = Math.max(light, dark);
  return {
    grey, cell, cells, background, spread, contrast,
    isDark: dark > light,
    isBlank: contrast < Math.max(8, 6 * spread),
    threshold: Math.max(Math.floor(contrast / 12), 4 * spread),
    paperThreshold: Math.max(12, 4 * spread),
    difference: (level) => (dark > light ? background - level : level - background),
  };
}

/** Steps 8 and 9: the box around the item and, with `paper`, around what is lighter by that. */
function boxOf({ grey, cell, cells, difference, threshold }, paper = Infinity) {
  const places = withoutDust(
    Array.from(cells.data, difference).map((d) => d > threshold || d < -paper), cells.width);
  const columns = places.map((place) => place % cells.width);
  const rows = places.map((place) => Math.floor(place / cells.width));
  const left = Math.max(0, (Math.min(...columns) - 1) * cell);
  const right = Math.min(grey.width, (Math.max(...columns) + 2) * cell);
  const top = Math.max(0, (Math.min(...rows) - 1) * cell);
  const bottom = Math.min(grey.height, (Math.max(...rows) + 2) * cell);

  const side = Math.max(1, Math.floor(Math.max(grey.width, grey.height) / 32));
  const span = Math.min(side, right - left, bottom - top);
  const d = (x, y) => difference(grey.data[y * grey.width + x]);
  const [x0, x1] = belonging(left, right, top, bottom, d);
  const [y0, y1] = belonging(top, bottom, left, right, (y, x) => d(x, y));
  return { left: x0, top: y0, width: x1 - x0, height: y1 - y0 };

  /** From the first to the last line on which the sum over some window of `span` stands out. */
  function belonging(first, end, from, to, at) {
    let found = null;
    for (let line = first; line < end; line++) {
      let sum = 0;
      for (let i = from; i < to; i++) {
        sum += at(line, i);
        if (i - span >= from) sum -= at(line, i - span);
        if (i - from < span - 1) continue; // no whole window yet
        if (sum > span * threshold || sum < -span * paper) {
          found = [found ? found[0] : line, line + 1];
          break;
        }
      }
    }
    return found ?? [first, end];
  }
}

/** The marked places in parts of at least 1/50 of the largest part. */
function withoutDust(marked, width) {
  const unseen = new Set(marked.flatMap((isMarked, place) => (isMarked ? [place] : [])));
  const parts = [];
  for (const start of unseen) {
    unseen.delete(start);
    const part = [start];
    for (const place of part) { // grows in this loop
      for (const step of [-1, 0, 1]) {
        if (Math.floor((place + step) / width) !== Math.floor(place / width)) continue;
        for (const next of [place + step - width, place + step, place + step + width]) {
          if (unseen.delete(next)) part.push(next);
        }
      }
    }
    parts.push(part);
  }
  const largest = Math.max(...parts.map((part) => part.length));
  return parts.filter((part) => 50 * part.length >= largest).flat();
}

function cut(image, { left, top, width, height }) {
  const part = newImage(width, height);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * image.width + left;
    part.data.set(image.data.subarray(start, start + width), y * width);
  }
  return part;
}

/** Steps 3 to 13: the 784 pixels that the model sees, and their scene. */
function see(grey) {
  if (model.framing === "whole") {
    const area = grey.width * grey.height;
    const sums = resize(grey, 28, 28, (level) => level);
    return {
      scene: { contrast: 255, spread: 0, isBlank: false }, // nothing to warn of
      pixels: Uint8Array.from(sums, (sum) => Math.floor((2 * sum + area) / (2 * area))),
    };
  }
  let scene = sceneOf(grey);
  if (scene.isDark && !scene.isBlank) { // step 10: is it on paper?
    const paper = cut(grey, boxOf(scene, scene.paperThreshold));
    if (median(border(paper)) > scene.background + scene.paperThreshold) {
      const nearer = sceneOf(paper);
      if (!nearer.isBlank) scene = nearer;
    }
  }
  return { scene, pixels: scene.isBlank ? new Uint8Array(784) : place(scene, boxOf(scene)) };
}

/** Steps 11 to 13: the box with 20 or 28 pixels on its longest side, the brightest 255, placed. */
function place({ grey, difference }, box) {
  const item = cut(grey, box);
  const byMass = model.framing === "centre-of-mass";
  const longest = Math.max(item.width, item.height);
  const newSize = (side) =>
    Math.max(1, Math.floor((2 * (byMass ? 20 : 28) * side + longest) / (2 * longest)));
  const [width, height] = [newSize(item.width), newSize(item.height)];
  const sums = resize(item, width, height, difference).map((sum) => Math.max(sum, 0));
  const most = Math.max(1, ...sums);
  const levels = sums.map((sum) => Math.floor((510 * sum + most) / (2 * most)));
  const column = (i) => i % width;
  const row = (i) => Math.floor(i / width);
  const left = byMass ? firstLine(levels, column, width) : Math.floor((29 - width) / 2);
  const top = byMass ? firstLine(levels, row, height) : Math.floor((29 - height) / 2);
  const pixels = new Uint8Array(784);
  levels.forEach((level, i) => { pixels[28 * (top + row(i)) + left + column(i)] = level; });
  return pixels;
}

/** Where the lines of an item begin, so that its centre of mass is in the middle of 28. */
function firstLine(levels, lineOf, size) {
  const total = levels.reduce((sum, level) => sum + level);
  const moment = levels.reduce((sum, level, i) => sum + level * lineOf(i), 0);
  const first = 14 - Math.floor((2 * moment + total) / (2 * total));
  return Math.min(Math.max(0, first), 28 - size);
}

/** The sums over the areas that new pixels cover, times the new size: whole numbers. */
function resize({ width, height, data }, newWidth, newHeight, value) {
  // How much of old pixel j is covered by new pixel i, times the new size.
  const overlap = (i, j, size, old) =>
    Math.min((i + 1) * old, (j + 1) * size) - Math.max(i * old, j * size);
  return new Float64Array(newWidth * newHeight).map((_, place) => {
    const [column, row] = [place % newWidth, Math.floor(place / newWidth)];
    let sum = 0;
    for (let y = Math.floor(row * height / newHeight); y * newHeight < (row + 1) * height; y++) {
      const end = (column + 1) * width;
      for (let x = Math.floor(column * width / newWidth); x * newWidth < end; x++) {
        sum += value(data[y * width + x])
          * overlap(row, y, newHeight, height) * overlap(column, x, newWidth, width);
      }
    }
    return sum;
  });
}

// ---------------------------------------------------------------------------------------------
// 3. From 28 x 28 pixels to probabilities

/** z = s W x + b, in float64. */
function logits(pixels) {
  const z = Float64Array.from(theta.subarray(784 * k));
  pixels.forEach((level, i) => {
    for (let c = 0; c < k; c++) z[c] += theta[i * k + c] * model.pixelScale * level;
  });
  return z;
}

/** softmax(z); the largest logit is subtracted first, so no exponential overflows. */
function softmax(z) {
  const largest = Math.max(...z);
  const powers = z.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function topThree(pixels) {
  const shares = softmax(logits(pixels));
  const guesses = model.classes.map((name, c) => ({ name, share: shares[c] }));
  return guesses.sort((a, b) => b.share - a.share).slice(0, 3);
}

/** The distance to the nearest class mean, in radii of that class; 0 without class means. */
function novelty(pixels) {
  const ratios = (model.radii ?? []).map((radius, c) => {
    const squares = pixels.reduce((sum, level, i) => sum + (level - means[784 * c + i]) ** 2, 0);
    return radius > 0 ? model.pixelScale * Math.sqrt(squares) / radius : Infinity;
  });
  return ratios.length ? Math.min(...ratios) : 0;
}

// ---------------------------------------------------------------------------------------------
// 4. The page

const byId = (id) => document.getElementById(id);
const canvas = byId("drawing");
const drawing = canvas.getContext("2d", { willReadFrequently: true });
const photo = byId("photo");
const answer = byId("answer");
if (["centre-of-mass", "whole"].includes(model.framing)) {
  byId("hint").firstChild.data = "Draw here,"; // and do not fill in a digit
}
if (model.framing === "whole") {
  document.querySelector(".note").textContent = "28 × 28 grey pixels: the whole picture.";
}

// Pictures may arrive faster than they are decoded; only the last one is shown.
let turn = 0;

async function take(files, from) {
  const mine = ++turn;
  answer.ariaBusy = "true";
  try {
    if (!files.length) throw new Error(`What was ${from} holds no picture. Choose a file instead.`);
    const bitmap = await decode(files[0]);
    if (mine === turn) {
      showPhoto(files[0]);
      classify(bitmap);
    }
    bitmap.close();
  } catch (problem) {
    if (mine !== turn) return;
    clear();
    say([], [problem.message]);
  }
}

function showPhoto(file) {
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(file);
  photo.alt = `Your picture, ${file.name}`;
  photo.hidden = false;
  canvas.hidden = byId("hint").hidden = true;
}

function classify(source) {
  const { pixels, scene } = see(greyOf(source));
  paint(pixels);
  say(scene.isBlank ? [] : topThree(pixels), warningsOf(scene, pixels));
}

/** Reasons why the guesses may be unreliable, in the words of scripts/predict.py. */
function warningsOf({ contrast, spread, isBlank }, pixels) {
  if (isBlank) return ["blank: nothing stands out from the background"];
  const warnings = [];
  if (!model.framing) {
    warnings.push("unknown framing: the model does not say how its training images were framed, "
      + "and is taken to be one of Fashion-MNIST; set model.framing");
  }
  const levels = `${contrast} of 255 grey levels`;
  if (contrast < LOW_CONTRAST) {
    warnings.push(`low in contrast: ${levels} between the item and the background`);
  }
  if (contrast < LOW_CONTRAST_TO_SPREAD * spread) {
    warnings.push(`uneven background: it varies by ${spread}, the item by ${levels}`);
  }
  const far = novelty(pixels);
  if (far > 1) {
    warnings.push(`unlike the training data: ${far.toFixed(2)} times as far from the nearest class `
      + "mean as 99 % of that class");
  }
  return warnings;
}

/** Show what the model sees. */
function paint(pixels) {
  const image = new ImageData(28, 28);
  pixels.forEach((level, i) => image.data.set([level, level, level, 255], 4 * i));
  byId("seen").getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
  byId("seen").ariaLabel = `28 by 28 pixels, ${pixels.filter(Boolean).length} of them not black`;
}

/** Inserts text as text, never as HTML: the class names may come from a stranger's file. */
function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

/** Show guesses as bars, with warnings below; a screen reader reads both. */
function say(guesses, warnings) {
  const rows = guesses.map(({ name, share }) => {
    const bar = element("div", "bar");
    bar.style.width = `${100 * share}%`;
    return element("li", "", element("span", "name", name),
      element("span", "share", `${(100 * share).toFixed(1)} %`), element("div", "track", bar));
  });
  const list = element("ol", "guesses", ...rows);
  list.role = "list"; // Safari drops the role of lists without numbers
  answer.replaceChildren(...(rows.length ? [list] : []),
    ...warnings.map((warning) => element("p", "warning", warning)));
  answer.ariaBusy = "false";
}

function clear() {
  turn++;
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  photo.hidden = true;
  canvas.hidden = byId("hint").hidden = false;
  paint(new Uint8Array(784));
  say([], []);
  answer.append(element("p", "waiting", "Nothing yet."));
}

// Drawing: a thick black line on white, classified while it is drawn.

let pointer = -1; // the mouse, pen or finger that drew last
let before = null; // the drawing without the last stroke
const stroking = () => canvas.hasPointerCapture(pointer);
let due = false; // whether the next frame classifies the drawing

function drawTo({ offsetX, offsetY }) {
  const scale = canvas.width / canvas.clientWidth;
  drawing.lineWidth = byId("brush").value;
  drawing.lineCap = drawing.lineJoin = "round";
  drawing.lineTo(offsetX * scale, offsetY * scale);
  drawing.lineTo(offsetX * scale + 0.01, offsetY * scale); // a touch makes a dot
  drawing.stroke();
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (canvas.hidden || !byId("hint").hidden) return; // replaced or cleared meanwhile
    classify(canvas);
    answer.ariaBusy = String(stroking()); // screen readers wait until the line ends
  });
}

canvas.addEventListener("pointerdown", (event) => {
  if (stroking() || event.button !== 0) return;
  turn++; // ignores a photo that is still being decoded
  before = byId("hint").hidden ? drawing.getImageData(0, 0, canvas.width, canvas.height) : null;
  byId("hint").hidden = true;
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  drawing.beginPath();
  drawTo(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (stroking() && event.pointerId === pointer) drawTo(event);
});
// The browser cancels a stroke that becomes a gesture of two fingers.
canvas.addEventListener("pointercancel", (event) => {
  if (canvas.hidden || event.pointerId !== pointer) return;
  if (!before) return clear();
  drawing.putImageData(before, 0, 0);
  classify(canvas);
});
canvas.addEventListener("lostpointercapture", () => {
  if (!due) answer.ariaBusy = "false";
});
byId("clear").addEventListener("click", clear);

for (const input of [byId("file"), byId("camera")]) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) take(files);
  });
}
document.addEventListener("paste", (event) => take([...event.clipboardData.files], "pasted"));

// The whole page is the target; otherwise the browser would leave the page and open the file.
const mark = (on) => byId("stage").classList.toggle("target", on);
document.addEventListener("dragover", (event) => { event.preventDefault(); mark(true); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) mark(false); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  mark(false);
  take([...event.dataTransfer.files], "dropped");
});

model.classes.slice(0, 12).forEach((name, c) =>
  byId("classes").append(c ? ", " : "", element("span", "name", name)));
if (k > 12) byId("classes").append(", …");
byId("about").textContent =
  `Softmax regression from 784 pixels to ${k} classes: ${785 * k} numbers. Made with npsoftmax.`;
clear();
