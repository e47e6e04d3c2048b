
// ---------------------------------------------------------------------------------------------
// 1. The model: its numbers are at the end of this file, compressed, column by column

const model = JSON.parse(document.getElementById("model").textContent);
const { side, features } = model;
const k = model.classes.length;
const means = model.means && new Uint8Array(await inflate(model.means));
const bank = features && Float64Array.from(new Int16Array(await inflate(features.filters)),
  (value) => features.filterScale * value);
const offsets = features && new Float32Array(await inflate(features.offsets));

const packed = await inflate(model.theta);
const theta = features ? nineBits(k * features.cells ** 2 * offsets.length) : new Float32Array(packed);

/** Numbers from -256 to 255: their upper eight bits, then all last bits, which do not compress. */
function nineBits(count) {
  const [upper, last] = [new Int8Array(packed, 0, count), new Uint8Array(packed, count)];
  return Float64Array.from(upper, (half, i) => 2 * half + ((last[i >> 3] >> (i & 7)) & 1));
}

function inflate(text) {
  const deflated = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const unpacking = new DecompressionStream("deflate-raw");
  return new Response(new Blob([deflated]).stream().pipeThrough(unpacking)).arrayBuffer();
}

// ---------------------------------------------------------------------------------------------
// 2. From a photo to the pixels that the model sees
//
// The recipe of npsoftmax/ext/photos.py (steps 1 to 3) and segmentation.py (from step 4), to the
// last bit: whole numbers, or float64 in the same order, on the pixels of the file. The browser's
// scaling is not used, because it differs between browsers. An image is { width, height, data },
// one byte per pixel, row by row.

const WORKING_SIDE = 512;
const CELLS = 64;
const TILE = 2048; // phones limit the size of a canvas, so large photos are read in tiles
const MAX_PIXELS = 89478485; // Pillow's limit
const MAX_BYTES = 100 * 2 ** 20;
const FULL_CONTRAST = 32;
const CLEAR = 0.55;
const UNEVEN = 6;
const PLAIN = 40;
const BINS = 16;
const byMass = model.framing === "centre-of-mass";

const { floor, max, min } = Math;
const newImage = (width, height) => ({ width, height, data: new Uint8Array(width * height) });
const sorted = (values) => Float64Array.from(values).sort();
const median = (values) => sorted(values)[floor(values.length / 2)];
const total = (values) => values.reduce((sum, value) => sum + value, 0);

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

/** Steps 1 and 2: red, green and blue of a bitmap or canvas on white, and alpha; block means. */
function channelsOf(source) {
  const factor = Math.ceil(max(source.width, source.height) / WORKING_SIDE);
  const channels = [0, 1, 2, 3].map(() =>
    newImage(Math.ceil(source.width / factor), Math.ceil(source.height / factor)));
  const span = factor * floor(TILE / factor); // whole blocks
  const tile = new OffscreenCanvas(min(span, source.width), min(span, source.height))
    .getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < source.height; top += span) {
    for (let left = 0; left < source.width; left += span) {
      const width = min(span, source.width - left);
      const height = min(span, source.height - top);
      tile.clearRect(0, 0, width, height);
      tile.drawImage(source, -left, -top);
      const clear = tile.getImageData(0, 0, width, height).data;
      tile.fillStyle = "white";
      tile.fillRect(0, 0, width, height);
      tile.drawImage(source, -left, -top);
      const onWhite = tile.getImageData(0, 0, width, height).data;
      channels.forEach((channel, c) => {
        const levels = c === 3 ? clear : onWhite;
        const reduced = blockMeans(width, height, factor, (place) => levels[4 * place + c]);
        reduced.data.forEach((level, i) => {
          const x = left / factor + (i % reduced.width);
          const y = top / factor + floor(i / reduced.width);
          channel.data[y * channel.width + x] = level;
        });
      });
    }
  }
  return channels;
}

/** The mean of every block of span x span pixels; blocks at the edge may be smaller. */
function blockMeans(width, height, span, levelAt) {
  const reduced = newImage(Math.ceil(width / span), Math.ceil(height / span));
  reduced.data.forEach((_, i) => {
    const left = (i % reduced.width) * span;
    const top = floor(i / reduced.width) * span;
    const right = min(width, left + span);
    const bottom = min(height, top + span);
    const count = (right - left) * (bottom - top);
    let sum = floor(count / 2); // rounds the quotient half up
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) sum += levelAt(y * width + x);
    }
    // Pillow multiplies by 1 / count with 24 bits, which is sometimes 1 less than the quotient.
    reduced.data[i] = floor(sum * floor(2 ** 24 / count) / 2 ** 24);
  });
  return reduced;
}

/** The means of square blocks, at most 64 along a side. */
function cellsOf({ width, height, data }) {
  return blockMeans(width, height, Math.ceil(max(width, height) / CELLS), (place) => data[place]);
}

/** The outermost pixels of an image, each corner once. */
function border({ width, height, data }) {
  const edge = [...data.subarray(0, width)];
  for (let y = 1; y < height - 1; y++) {
    edge.push(data[y * width]);
    if (width > 1) edge.push(data[(y + 1) * width - 1]);
  }
  if (height > 1) edge.push(...data.subarray((height - 1) * width));
  return edge;
}

/** What the model sees: one or several framings of 784 pixels, and how well the item was found. */
function see(source) {
  const [red, green, blue, alpha] = channelsOf(source);
  const grey = { ...red, data: red.data.map((level, i) =>
    (19595 * level + 38470 * green.data[i] + 7471 * blue.data[i] + 32768) >> 16) };
  if (model.framing === "whole") return { framings: [shrink(grey, side, side).data] };
  if (model.framing === "square") return { framings: [fillUp(grey)] };
  const cells = [red, green, blue].map(cellsOf);
  const opaque = cellsOf(alpha).data;
  if (opaque.some((level) => level < 128) && opaque.some((level) => level >= 128)) { // step 5
    const item = [...opaque.keys()].filter((place) => opaque[place] >= 128);
    return { framings: frames(cells, Float64Array.from(opaque, (level) => level / 255), item) };
  }
  const scene = sceneOf(grey);
  const scenes = [red, green, blue].map(sceneOf);
  if ([scene, ...scenes].every((each) => each.isBlank && each.spread < UNEVEN)) { // step 9
    return { framings: [new Uint8Array(784)], isBlank: true };
  }
  if (scene.isPlain && 2 * scene.contrast >= max(...scenes.map((each) => each.contrast))) {
    const nearer = cutToPaper(scene);
    return { framings: [place(nearer, boxOf(nearer))], contrast: nearer.contrast };
  }
  const share = segment(cells);
  const { width, height } = cells[0];
  const weights = middle(width, height).map((weight) => floor(256 * weight));
  const item = withoutDust(likelier(share), width, weights, 10);
  return { framings: frames(cells, share, item), quality: clearness(share, item) };
}

/** Step 3: the picture on a square of the grey of its border. */
function fillUp(grey) {
  const longest = max(grey.width, grey.height);
  const small = shrink(grey, fit(grey.width, longest, side), fit(grey.height, longest, side));
  const square = new Uint8Array(side * side).fill(median(border(small)));
  return put(small, square, floor((side - small.width) / 2), floor((side - small.height) / 2));
}

/** The size of a side when the longest becomes `target`. */
function fit(size, longest, target) {
  return max(1, floor((2 * target * size + longest) / (2 * longest)));
}

function shrink(image, width, height) {
  const area = image.width * image.height;
  const sums = resize(image, width, height, (level) => level);
  return { width, height, data: sums.map((sum) => floor((2 * sum + area) / (2 * area))) };
}

/** Lay an image on a square. */
function put({ width, data }, square, left, top) {
  const all = Math.sqrt(square.length);
  data.forEach((level, i) => { square[all * (top + floor(i / width)) + left + i % width] = level; });
  return square;
}

// An uneven background: the colours of the item and of its background, learned from the photo.

/** Steps 16 to 20: how likely each cell belongs to the item, from 0 to 1. */
function segment(cells) {
  const { width, height } = cells[0];
  const colours = opponent(cells);
  const bins = binsOf(colours);
  const { below, right } = bonds(colours, width);
  let share = middle(width, height);
  const place = share.map((weight) => min(weight, 0.5));
  for (let round = 0; round < 4; round++) {
    const votes = share.map((value) => floor(256 * value));
    const inside = density(bins, votes).map((f, i) => f * (1 + 10 * place[i]));
    const outside = density(bins, votes.map((vote) => 256 - vote))
      .map((b, i) => b * (11 - 10 * place[i]));
    const prior = inside.map((f, i) => f / (f + outside[i]));
    share = diffuse(prior, below, right, width);
  }
  return share;
}

/** Step 16: lightness, red against green, and yellow against blue. */
function opponent(cells) {
  const [red, green, blue] = cells.map(({ data }) => Float64Array.from(data));
  return [
    red.map((level, i) => level + 2 * green[i] + blue[i]),
    red.map((level, i) => 6 * (level - green[i])),
    red.map((level, i) => 3 * (level + green[i] - 2 * blue[i])),
  ];
}

function binsOf(colours) {
  const least = colours.map((values) => min(...values));
  const range = max(...colours.map((values, c) => max(...values) - least[c]));
  const step = floor(max(128, range) / BINS) + 1;
  const [lightness, red, yellow] = colours.map((values, c) =>
    values.map((value) => floor((value - least[c]) / step)));
  return lightness.map((bin, i) => (bin * BINS + red[i]) * BINS + yellow[i]);
}

/** Step 17: 1 in the middle of an image, falling to 0 at its border. */
function middle(width, height) {
  return new Float64Array(width * height).map((_, place) => {
    const [i, j] = [floor(place / width), place % width];
    const row = (2 * i + 1) * (2 * height - 2 * i - 1);
    return row * ((2 * j + 1) * (2 * width - 2 * j - 1)) / (height * height * width * width);
  });
}

/** Step 18: how much cells agree with the one below, and with the one to the right. */
function bonds(colours, width) {
  const size = colours[0].length;
  const square = (x) => x * x;
  const steps = (to, exists) => Float64Array.from({ length: size }, (_, at) =>
    (exists(at) ? total(colours.map((values) => square(values[at + to] - values[at]))) : -1));
  const down = steps(width, (at) => at + width < size);
  const across = steps(1, (at) => (at + 1) % width > 0);
  const all = [...down, ...across].filter((step) => step >= 0);
  const typical = total(all) / max(1, all.length) + 64;
  const bond = (step) => (step < 0 ? 0 : typical / (typical / 8 + 6 * step));
  return { below: down.map(bond), right: across.map(bond) };
}

/** Step 19: the share of the votes that have about the colour of each cell. */
function density(bins, votes) {
  let counts = new Float64Array(BINS ** 3);
  bins.forEach((bin, i) => { counts[bin] += votes[i]; });
  for (const stride of [BINS * BINS, BINS, 1, BINS * BINS, BINS, 1]) {
    counts = counts.map((count, bin) => {
      const along = floor(bin / stride) % BINS;
      return (along > 0 ? counts[bin - stride] : 0) + 2 * count
        + (along < BINS - 1 ? counts[bin + stride] : 0);
    });
  }
  const all = max(1, total(votes));
  return Float64Array.from(bins, (bin) => counts[bin] / all);
}

/** Step 20: means of every cell's prior and its neighbours' shares, weighted with the bonds. */
function diffuse(prior, below, right, width) {
  const withNeighbours = (start, share) => start.map((value, i) => {
    let sum = value;
    if (i >= width) sum += below[i - width] * share[i - width];
    if (i + width < start.length) sum += below[i] * share[i + width];
    if (i % width > 0) sum += right[i - 1] * share[i - 1];
    if ((i + 1) % width > 0) sum += right[i] * share[i + 1];
    return sum;
  });
  const ones = prior.map(() => 1);
  const weights = withNeighbours(ones, ones);
  let share = prior;
  for (let sweep = 0; sweep < 24; sweep++) {
    share = withNeighbours(prior, share).map((sum, i) => sum / weights[i]);
  }
  return share;
}

/** Step 21: whether cells are above the level halfway between the means of both sides. */
function likelier(share) {
  const votes = Array.from(share, (value) => floor(256 * value));
  let level = 128;
  for (let round = 0; round < 8; round++) {
    const above = votes.filter((vote) => vote > level);
    const others = votes.filter((vote) => vote <= level);
    if (above.length && others.length) {
      const [high, low] = [above, others].map((each) => floor(total(each) / each.length));
      level = floor((high + low) / 2);
    }
  }
  return votes.map((vote) => vote > level);
}

/** Step 21: the mean share of the item's cells minus that of the others. */
function clearness(share, item) {
  const others = share.length - item.length;
  if (!item.length || !others) return 0;
  const votes = share.map((value) => floor(256 * value));
  const inside = total(item.map((place) => votes[place]));
  return max(0, inside / (256 * item.length) - (total(votes) - inside) / (256 * others));
}

/** Steps 22 to 24: the item on 28 x 28 black pixels and, by bounding box, its mirror image. */
function frames(cells, share, item) {
  const { width, height } = cells[0];
  const box = item.length ? boxAround(item, width) : { left: 0, top: 0, width, height };
  const inside = new Set(item.length ? item : share.keys());
  const [red, green, blue] = cells.map(({ data }) => data);
  const greyAt = (i) => floor((red[i] + 2 * green[i] + blue[i] + 2) / 4);
  const brightest = 150 + median(Array.from(inside, greyAt));
  const levels = new Float64Array(box.width * box.height).map((_, place) => {
    const i = (box.top + floor(place / box.width)) * width + box.left + place % box.width;
    if (!inside.has(i)) return 0;
    const ink = max(floor(256 * share[i]), 128);
    return ink * (byMass ? 255 : min(max(0, brightest - greyAt(i)), 255));
  });
  const longest = max(box.width, box.height);
  const newWidth = fit(box.width, longest, byMass ? 20 : 28);
  const stretched = !byMass && 4 * box.width <= 7 * box.height;
  const newHeight = stretched ? 28 : fit(box.height, longest, byMass ? 20 : 28);
  const n = 256 * levels.length;
  const sums = resize({ ...box, data: levels }, newWidth, newHeight, (level) => level);
  const pixels = onBlack(sums.map((sum) => floor((2 * sum + n) / (2 * n))), newWidth, newHeight);
  // Mirror features are the same for both, so that one is enough.
  return byMass || features?.mirror ? [pixels] : [pixels, mirrored(pixels, 28)];
}

const mirrored = (pixels, width) => pixels.map((_, i) => pixels[i - 2 * (i % width) + width - 1]);

/** The box of some places in an image. */
function boxAround(places, width) {
  const columns = places.map((place) => place % width);
  const rows = places.map((place) => floor(place / width));
  const [left, top] = [min(...columns), min(...rows)];
  return { left, top, width: max(...columns) + 1 - left, height: max(...rows) + 1 - top };
}

// A plain background.

/** Step 6: the image without a fall of the light from one side to the other. */
function evenlyLit({ width, height, data }) {
  const unevenness = (image) => {
    const edge = border(image);
    const typical = median(edge);
    return median(edge.map((level) => Math.abs(level - typical)));
  };
  const falls = (n, line) => {
    const fall = median(line(n - 1)) - median(line(0));
    return Array.from({ length: n }, (_, i) => floor((2 * i + 1 - n) * fall / (2 * n)));
  };
  const down = falls(height, (y) => data.subarray(y * width, (y + 1) * width));
  const across = falls(width, (x) => Array.from({ length: height }, (_, y) => data[y * width + x]));
  const even = { width, height, data: data.map((level, i) =>
    min(max(0, level - down[floor(i / width)] - across[i % width]), 255)) };
  const grey = { width, height, data };
  return unevenness(even) <= unevenness(grey) ? even : grey;
}

/** Steps 6 to 10: background, polarity, contrast and thresholds of a grey image. */
function sceneOf(given) {
  const grey = evenlyLit(given);
  const cells = cellsOf(grey);
  const background = median(border(cells));
  const spread = median(border(cells).map((level) => Math.abs(level - background)));
  const order = sorted(cells.data);
  const n = max(1, floor(order.length / 200));
  const light = order[order.length - n] - background;
  const dark = background - order[n - 1];
  const contrast = max(light, dark);
  return {
    grey, cells, background, spread, contrast,
    isDark: dark > light,
    isBlank: contrast < max(8, 6 * spread),
    isPlain: contrast >= max(8, PLAIN * spread),
    threshold: max(floor(contrast / 12), 4 * spread),
    difference: (level) => (dark > light ? background - level : level - background),
  };
}

/** Steps 10 and 11: the box around the item and, with `paper`, around what is lighter by that. */
function boxOf({ grey, cells, difference, threshold }, paper = Infinity) {
  const cell = Math.ceil(max(grey.width, grey.height) / CELLS);
  const marked = Array.from(cells.data, difference).map((d) => d > threshold || d < -paper);
  const around = boxAround(withoutDust(marked, cells.width, cells.data.map(() => 1), 50), cells.width);
  const left = max(0, (around.left - 1) * cell);
  const right = min(grey.width, (around.left + around.width + 1) * cell);
  const top = max(0, (around.top - 1) * cell);
  const bottom = min(grey.height, (around.top + around.height + 1) * cell);

  const span = min(max(1, floor(max(grey.width, grey.height) / 32)), right - left, bottom - top);
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

/** The marked places in parts that weigh at least 1 / times of the heaviest part. */
function withoutDust(marked, width, weights, times) {
  const unseen = new Set(marked.flatMap((isMarked, place) => (isMarked ? [place] : [])));
  const parts = [];
  for (const start of unseen) {
    unseen.delete(start);
    const part = [start];
    for (const place of part) { // grows in this loop
      for (const step of [-1, 0, 1]) {
        if (floor((place + step) / width) !== floor(place / width)) continue;
        for (const next of [place + step - width, place + step, place + step + width]) {
          if (unseen.delete(next)) part.push(next);
        }
      }
    }
    parts.push(part);
  }
  const weigh = (part) => total(part.map((place) => weights[place]));
  const heaviest = max(0, ...parts.map(weigh));
  return parts.filter((part) => times * weigh(part) >= heaviest).flat();
}

function cut(image, { left, top, width, height }) {
  const part = newImage(width, height);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * image.width + left;
    part.data.set(image.data.subarray(start, start + width), y * width);
  }
  return part;
}

/** Step 12: the scene of the sheet of paper below the item, if there is one. */
function cutToPaper(scene) {
  if (scene.isBlank || !scene.isDark) return scene;
  const lighter = max(12, 4 * scene.spread);
  const paper = cut(scene.grey, boxOf(scene, lighter));
  if (median(border(paper)) <= scene.background + lighter) return scene;
  const sheet = sceneOf(paper);
  return sheet.isBlank ? scene : sheet;
}

/** Steps 14 and 15: the box with 20 or 28 pixels on its longest side, the brightest 255. */
function place({ grey, difference }, box) {
  const item = cut(grey, box);
  const longest = max(item.width, item.height);
  const [width, height] = [item.width, item.height].map((size) =>
    fit(size, longest, byMass ? 20 : 28));
  const sums = resize(item, width, height, difference).map((sum) => max(sum, 0));
  const most = max(1, ...sums);
  return onBlack(sums.map((sum) => floor((510 * sum + most) / (2 * most))), width, height);
}

/** Step 24: the item on 28 x 28 black pixels. */
function onBlack(levels, width, height) {
  const left = byMass ? firstLine(levels, (i) => i % width, width) : floor((29 - width) / 2);
  const top = byMass ? firstLine(levels, (i) => floor(i / width), height) : floor((29 - height) / 2);
  return put({ width, data: levels }, new Uint8Array(784), left, top);
}

/** Where the lines of an item begin, so that its centre of mass is in the middle of 28. */
function firstLine(levels, lineOf, size) {
  const all = total(levels);
  const moment = levels.reduce((sum, level, i) => sum + level * lineOf(i), 0);
  const first = 14 - floor((2 * moment + all) / (2 * all));
  return min(max(0, first), 28 - size);
}

/** The sums over the areas that new pixels cover, times the new size: whole numbers. */
function resize({ width, height, data }, newWidth, newHeight, value) {
  // How much of old pixel j is covered by new pixel i, times the new size.
  const overlap = (i, j, size, old) =>
    min((i + 1) * old, (j + 1) * size) - max(i * old, j * size);
  return new Float64Array(newWidth * newHeight).map((_, place) => {
    const [column, row] = [place % newWidth, floor(place / newWidth)];
    let sum = 0;
    for (let y = floor(row * height / newHeight); y * newHeight < (row + 1) * height; y++) {
      const end = (column + 1) * width;
      for (let x = floor(column * width / newWidth); x * newWidth < end; x++) {
        sum += value(data[y * width + x])
          * overlap(row, y, newHeight, height) * overlap(column, x, newWidth, width);
      }
    }
    return sum;
  });
}

// ---------------------------------------------------------------------------------------------
// 3. From pixels to probabilities

/** What theta multiplies: scaled pixels, or the features of npsoftmax/features.py. */
function extract(pixels) {
  const scaled = Float64Array.from(pixels, (level) => model.pixelScale * level);
  if (!features) return scaled;
  const pooled = pool(scaled);
  if (!features.mirror) return pooled;
  const other = pool(mirrored(scaled, side));
  return pooled.map((value, i) => (value + other[i]) / 2);
}

const PADDING = 2;
const EPSILON = 0.02;

/** The square roots of the pooled responses of whitened patches, by window and filter. */
function pool(pixels) {
  const { cells } = features;
  const count = offsets.length;
  const q = Math.sqrt(bank.length / count);
  const width = side + 2 * PADDING;
  const padded = put({ width: side, data: pixels }, new Float64Array(width * width), PADDING, PADDING);
  const places = width - q + 1;
  const windows = windowsOf(places, cells);
  const pooled = new Float64Array(cells * cells * count);
  const patch = new Float64Array(q * q);
  const responses = new Float64Array(count);
  for (let top = 0; top < places; top++) {
    for (let left = 0; left < places; left++) {
      for (let y = 0; y < q; y++) {
        const start = (top + y) * width + left;
        patch.set(padded.subarray(start, start + q), y * q);
      }
      normalise(patch);
      responses.set(offsets);
      for (let i = 0; i < patch.length; i++) {
        for (let f = 0; f < count; f++) responses[f] += patch[i] * bank[i * count + f];
      }
      for (let cell = 0; cell < cells * cells; cell++) {
        const weight = windows[floor(cell / cells)][top] * windows[cell % cells][left];
        if (weight === 0) continue;
        for (let f = 0; f < count; f++) {
          if (responses[f] > 0) pooled[cell * count + f] += weight * responses[f];
        }
      }
    }
  }
  return pooled.map(Math.sqrt);
}

/** Without brightness and contrast. */
function normalise(patch) {
  let sum = 0;
  for (let i = 0; i < patch.length; i++) sum += patch[i];
  const mean = sum / patch.length;
  let squares = 0;
  for (let i = 0; i < patch.length; i++) squares += (patch[i] - mean) ** 2;
  const sigma = Math.sqrt(squares / patch.length + EPSILON ** 2);
  for (let i = 0; i < patch.length; i++) patch[i] = (patch[i] - mean) / sigma;
}

/** Triangular windows over the places along a side; each sums to 1. */
function windowsOf(places, cells) {
  return Array.from({ length: cells }, (_, cell) => {
    const centre = (cell + 0.5) * places / cells - 0.5;
    const weights = Array.from({ length: places }, (_, at) =>
      max(0, 1 - Math.abs(at - centre) * cells / places));
    const sum = total(weights);
    return weights.map((weight) => weight / sum);
  });
}

/** z = (W a + b) / T, in float64. */
function logits(inputs) {
  const sums = new Float64Array(k);
  inputs.forEach((input, i) => {
    for (let c = 0; c < k; c++) sums[c] += theta[i * k + c] * input;
  });
  return sums.map((sum, c) => model.scales[c] * sum + model.biases[c]);
}

/** softmax(z); the largest logit is subtracted first, so no exponential overflows. */
function softmax(z) {
  const largest = max(...z);
  const powers = z.map((logit) => Math.exp(logit - largest));
  const sum = total(powers);
  return powers.map((power) => power / sum);
}

const mean = (values) => total(values) / values.length;

/** The classes, the most likely first, by the mean over the framings. */
function rank(allLogits) {
  const shares = allLogits.map(softmax);
  const guesses = model.classes.map((name, c) => ({ name, share: mean(shares.map((p) => p[c])) }));
  return guesses.sort((a, b) => b.share - a.share);
}

/** The distance to the nearest class mean, in radii of that class; 0 without class means. */
function novelty(inputs) {
  const ratios = (model.radii ?? []).map((radius, c) => {
    const squares = inputs.reduce((sum, input, i) =>
      sum + (input - model.meanScales[c] * means[inputs.length * c + i]) ** 2, 0);
    return radius > 0 ? Math.sqrt(squares) / radius : Infinity;
  });
  return ratios.length ? min(...ratios) : 0;
}

/** By how much the best logit exceeds the mean, on the scale before calibration. */
function evidence(z) {
  return model.temperature * (max(...z) - mean(z));
}

// ---------------------------------------------------------------------------------------------
// 4. The page

const byId = (id) => document.getElementById(id);
const canvas = byId("drawing");
const drawing = canvas.getContext("2d", { willReadFrequently: true });
const photo = byId("photo");
const answer = byId("answer");
if (!["bounding-box", null].includes(model.framing)) {
  byId("hint").firstChild.data = "Draw here,"; // and do not fill in a digit
}
if (["whole", "square"].includes(model.framing)) {
  document.querySelector(".note").textContent = `${side} × ${side} grey pixels: the whole picture.`;
}
byId("seen").width = byId("seen").height = side;

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
  const item = see(source);
  paint(item.framings[0]);
  if (item.isBlank) return say([], ["blank: nothing stands out from the background"]);
  const inputs = item.framings.map(extract);
  const allLogits = inputs.map(logits);
  const guesses = rank(allLogits);
  const far = min(...inputs.map(novelty));
  say(guesses.slice(0, 3), [
    ...warningsOf(item),
    ...(far > 1 ? [`unlike the training data: ${far.toFixed(2)} times as far from every class as `
      + "99 % of its own training images"] : []),
    ...doubts(mean(allLogits.map(evidence)), guesses),
  ]);
}

/** Reasons why the guesses may be unreliable, in the words of scripts/predict.py. */
function warningsOf({ contrast, quality }) {
  const warnings = [];
  if (!model.framing) {
    warnings.push("unknown framing: the model does not say how its training images were framed, "
      + "and is taken to be one of Fashion-MNIST; set model.framing");
  }
  if (contrast < FULL_CONTRAST) {
    warnings.push(`low in contrast: ${contrast} of 255 grey levels between the item and the `
      + "background");
  }
  if (quality < CLEAR) warnings.push("no item found: the background is uneven");
  return warnings;
}

function doubts(found, [best, next]) {
  const limit = model.evidenceLimit;
  if (limit === null) return [];
  const reasons = found > limit ? [] : [
    `no class fits well: the evidence is ${found.toFixed(1)}, doubt begins at ${limit.toFixed(1)}`];
  if (next && next.share > best.share / 2) {
    reasons.push("the two best guesses are close: "
      + `${best.name} ${best.share.toFixed(2)} and ${next.name} ${next.share.toFixed(2)}`);
  }
  return reasons;
}

/** Show what the model sees. */
function paint(pixels) {
  const image = new ImageData(side, side);
  pixels.forEach((level, i) => image.data.set([level, level, level, 255], 4 * i));
  byId("seen").getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
  byId("seen").ariaLabel =
    `${side} by ${side} pixels, ${pixels.filter(Boolean).length} of them not black`;
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
  paint(new Uint8Array(side * side));
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
const from = features ? `${theta.length / k} features of ${side * side} pixels` : `${side * side} pixels`;
byId("about").textContent =
  `Softmax regression from ${from} to ${k} classes: ${theta.length + k} numbers. Made with npsoftmax.`;
clear();
