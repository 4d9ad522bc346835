const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const json = id => JSON.parse(document.getElementById(id)?.textContent ?? "null");
const percent = (value, digits = 1) => value === null || value === undefined ? "–" : (100 * value).toFixed(digits);

// The bytes that Python's `packed` compressed.
const unpack = async text => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
};

// ---- navigation, tabs, filters. Links scroll by script: a page within a page may have no address of its own.

for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", event => {
    event.preventDefault();
    document.getElementById(link.hash.slice(1)).scrollIntoView();
  });
}
const nav = document.querySelector("nav");
const makeRoom = () => { document.documentElement.style.scrollPaddingTop = `${nav.offsetHeight}px`; };
addEventListener("resize", makeRoom);
makeRoom();
const markPlace = () => {
  const headings = [...document.querySelectorAll("h2[id]")];
  const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
  const here = end ? headings.at(-1) : headings.findLast(heading => heading.getBoundingClientRect().top < innerHeight / 3) ?? headings[0];
  for (const link of document.querySelectorAll("nav a")) link.classList.toggle("here", link.hash === `#${here.id}`);
};
addEventListener("scroll", markPlace, {passive: true});
markPlace();

for (const button of document.querySelectorAll("[data-tab]")) {
  button.addEventListener("click", () => {
    for (const other of button.parentElement.querySelectorAll("[data-tab]")) {
      other.setAttribute("aria-pressed", other === button);
      document.getElementById(other.dataset.tab).hidden = other !== button;
    }
    document.getElementById(button.dataset.tab).dispatchEvent(new Event("shown"));
  });
}

const applyFilter = id => {
  const words = document.querySelector(`[data-filter="${id}"]`).value.toLowerCase().split(/\s+/).filter(Boolean);
  const only = document.querySelector(`[data-only="${id}"]`)?.checked ?? false;
  const whole = document.querySelector(`[data-only="${id}"]`) !== null;
  for (const row of document.getElementById(id).tBodies[0].rows) {
    const text = (whole ? row : row.cells[0]).textContent.toLowerCase();
    row.hidden = (only && !row.classList.contains("changed")) || !words.every(word => text.includes(word));
  }
};
for (const box of document.querySelectorAll("[data-filter]")) {
  box.addEventListener("input", () => applyFilter(box.dataset.filter));
  applyFilter(box.dataset.filter);
}
for (const box of document.querySelectorAll("[data-only]")) box.addEventListener("change", () => applyFilter(box.dataset.only));

// ---- curves: the value under the pointer

for (const figure of document.querySelectorAll("figure.curve")) {
  const points = figure.dataset.points.split(";").map(pair => pair.split(",").map(Number));
  const [svg, line, text] = ["svg", "line", "[data-first]"].map(selector => figure.querySelector(selector));
  const first = points[0][0], span = points.at(-1)[0] - first || 1;
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const step = first + ((event.clientX - box.left) / box.width * 308 - 4) / 300 * span;
    const near = points.reduce((best, point) => Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best);
    const x = (near[0] - first) / span * 300;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    text.textContent = `step ${near[0]}: ${near[1]}`;
  });
  svg.addEventListener("pointerleave", () => {
    line.setAttribute("x1", -9);
    line.setAttribute("x2", -9);
    text.textContent = `last ${text.dataset.first}`;
  });
}

// ---- confusion matrices

const drawMatrix = async canvas => {
  const names = json("class-names"), count = names.length;
  const counts = new Float64Array(await unpack(canvas.dataset.counts));
  const sums = names.map((_, row) => counts.subarray(row * count, (row + 1) * count).reduce((a, b) => a + b, 0));
  const named = count <= 40, cell = Math.max(4, Math.min(44, Math.floor((named ? 560 : 760) / count)));
  const margin = named ? 130 : 2, size = cell * count;
  canvas.width = canvas.height = margin + size + 2;
  const pen = canvas.getContext("2d");
  const cut = name => name.length > 18 ? name.slice(0, 17) + "…" : name;
  const paint = (at = null) => {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    for (let row = 0; row < count; row++) for (let column = 0; column < count; column++) {
      const share = sums[row] ? counts[row * count + column] / sums[row] : 0, pale = Math.round(255 * (1 - Math.sqrt(share)));
      pen.fillStyle = row === column ? `rgb(${pale}, ${Math.round(140 + pale * 115 / 255)}, ${pale})` : `rgb(255, ${pale}, ${pale})`;
      pen.fillRect(margin + column * cell, margin + row * cell, cell, cell);
    }
    pen.strokeStyle = "#adb5bd";
    pen.strokeRect(margin - .5, margin - .5, size + 1, size + 1);
    if (at) {
      pen.fillStyle = "#228be622";
      pen.fillRect(margin, margin + at[0] * cell, size, cell);
      pen.fillRect(margin + at[1] * cell, margin, cell, size);
      pen.strokeStyle = "#1864ab";
      pen.strokeRect(margin + at[1] * cell - .5, margin + at[0] * cell - .5, cell + 1, cell + 1);
    }
    if (!named) return;
    pen.fillStyle = "#212529";
    for (let i = 0; i < count; i++) {
      pen.textAlign = "right";
      pen.fillText(cut(names[i]), margin - 6, margin + (i + .5) * cell);
      pen.save();
      pen.translate(margin + (i + .5) * cell, margin - 6);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(cut(names[i]), 0, 0);
      pen.restore();
    }
  };
  paint();
  const reading = canvas.closest(".matrix").querySelector(".reading"), help = reading.textContent;
  canvas.addEventListener("pointermove", event => {
    const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
    const place = [event.clientY - box.top, event.clientX - box.left].map(p => Math.floor((p * scale - margin) / cell));
    if (place.some(i => i < 0 || i >= count)) return;
    const [row, column] = place, pixels = counts[row * count + column];
    const share = sums[row] ? pixels / sums[row] : null;
    reading.replaceChildren(
      element("b", {textContent: percent(share, 2) + " %"}), " of the pixels of ", element("b", {textContent: names[row]}),
      row === column ? " were found" : " were taken for ", row === column ? "" : element("b", {textContent: names[column]}),
      `: ${pixels.toLocaleString("en").replaceAll(",", " ")} of ${sums[row].toLocaleString("en").replaceAll(",", " ")}.`);
    paint(place);
  });
  canvas.addEventListener("pointerleave", () => { reading.textContent = help; paint(); });
};
for (const canvas of document.querySelectorAll(".matrix canvas")) {
  const holder = canvas.closest("[id^=matrix-]");
  const draw = () => drawMatrix(canvas);
  if (holder.hidden) holder.addEventListener("shown", draw, {once: true}); else draw();
}

// ---- pictures: ids come compressed and are painted here, so that the class under the pointer is known

const page = json("pictures-data");
if (page) {
  const by = id => document.getElementById(id);
  const Ids = page.names.length > 254 ? Uint16Array : Uint8Array; // what Python's `ids_dtype` says; the last one is ignored
  const IGNORED = Ids === Uint8Array ? 255 : 65535, RED = [214, 39, 40], GREEN = [43, 138, 62], GREY = [150, 150, 150];
  const colourOf = (table, id) => id < page.names.length ? table[id] : null;
  const models = Object.keys(page.models), short = model => page.models[model].replace(/^GSS-/, "");
  const versus = `${short(models.at(-1))} against ${short(models[0])}`;
  const LAYERS = {
    image: {needs: () => true},
    label: {needs: p => p.label, paint: (label, ids) => colourOf(page.colours, label) ?? [0, 0, 0]},
    prediction: {needs: p => p.predictions[state.model], paint: (label, ids) => colourOf(page.colours, ids)},
    error: {needs: p => p.label && p.predictions[state.model], paint: (label, ids) => label === IGNORED ? GREY : label === ids ? null : RED},
    uncertainty: {needs: p => p.uncertainties[state.model], picture: () => state.uncertainties[state.model]},
    ...page.palette.length ? {
      maskige: {needs: p => p.label, paint: (label, ids) => page.palette[label === IGNORED ? page.names.length : label]},
      "predicted maskige": {needs: p => p.maskige, picture: () => state.maskige},
      "token uncertainty": {needs: p => p.token_uncertainty, picture: () => state.tokens},
    } : {},
    ...models.length > 1 ? {[versus]: {
      needs: p => p.label && models.every(model => p.predictions[model]),
      paint: (label, ids, all) => {
        if (label === IGNORED) return GREY;
        const [first, second] = [models[0], models.at(-1)].map(model => all[model] === label);
        return first === second ? null : second ? GREEN : RED;
      },
    }} : {},
  };
  const EXPLAINED = {
    error: "red: wrong, grey: ignored", [versus]: `green: only ${page.models[models.at(-1)]} is right, red: only ${page.models[models[0]]} is right, grey: ignored`,
    maskige: "the label in the colours of the palette: what the tokenizer sees", "predicted maskige": "decoded from the predicted tokens; both models have the same",
    "token uncertainty": "entropy of the probabilities of tokens: black: one token is certain, white: all are equally likely; both models have the same",
    uncertainty: "entropy of the probabilities: black: one class is certain, white: all are equally likely",
    image: "the photograph alone", label: "black: ignored", prediction: "",
  };
  const state = {picture: null, model: models.at(-1), layer: "error", pointed: null, arrays: null, photo: null, maskige: null, tokens: null, uncertainties: {}};
  const canvas = by("canvas"), pen = canvas.getContext("2d");
  const groups = [...new Set(page.pictures.map(p => p.split))].flatMap(split => ["worst", "best", "evenly spaced"].map(reason => ({split, reason})))
    .filter(group => page.pictures.some(p => p.split === group.split && p.reasons.includes(group.reason)));
  const members = () => {
    const group = groups[by("choose-group").selectedIndex];
    return page.pictures.filter(p => p.split === group.split && p.reasons.includes(group.reason))
      .sort((a, b) => group.reason === "evenly spaced" ? a.index - b.index : (group.reason === "best" ? -1 : 1) * (a.mIoU[models.at(-1)] - b.mIoU[models.at(-1)]));
  };
  const loaded = address => address ? new Promise(done => { const image = new Image(); image.onload = () => done(image); image.onerror = () => done(null); image.src = address; }) : null;

  const show = async picture => {
    state.picture = picture;
    const uncertainties = Object.fromEntries(await Promise.all(models.map(async model => [model, await loaded(picture.uncertainties[model])])));
    const [photo, maskige, tokens, label, ...predicted] = await Promise.all([loaded(picture.photo), loaded(picture.maskige), loaded(picture.token_uncertainty),
      ...[picture.label, ...models.map(model => picture.predictions[model])].map(text => text ? unpack(text).then(bytes => new Ids(bytes)) : null)]);
    if (state.picture !== picture) return; // another one was chosen meanwhile
    Object.assign(state, {photo, maskige, tokens, uncertainties, arrays: {label, ...Object.fromEntries(models.map((model, i) => [model, predicted[i]]))}});
    for (const button of by("thumbs").children) button.setAttribute("aria-pressed", button.picture === picture);
    const scores = models.map(model => `${page.models[model]} ${percent(picture.mIoU[model])}`).join(", ");
    by("picture-title").replaceChildren(element("b", {textContent: picture.name}), ` (${picture.split} ${picture.index}) mIoU: ${scores}`);
    legend();
    refresh();
  };

  const refresh = () => {
    for (const input of by("choose-layer").querySelectorAll("input")) {
      const possible = Boolean(LAYERS[input.value].needs(state.picture));
      input.disabled = !possible;
      input.parentElement.classList.toggle("off", !possible);
      input.parentElement.title = possible ? "" : "not kept for this picture";
      input.checked = input.value === state.layer;
    }
    for (const input of by("choose-model").querySelectorAll("input")) input.checked = input.value === state.model;
    paint();
  };

  const paint = () => {
    const {width, height} = state.picture, layer = LAYERS[state.layer];
    canvas.width = width;
    canvas.height = height;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    if (state.photo) pen.drawImage(state.photo, 0, 0, width, height);
    by("under").textContent = layer.needs(state.picture) ? EXPLAINED[state.layer] : "not kept for this picture";
    if (!layer.needs(state.picture)) return;
    const sheet = element("canvas", {width, height});
    const {label, ...all} = state.arrays, ids = all[state.model];
    const pixels = new ImageData(width, height), values = pixels.data, now = {};
    for (let i = 0; i < width * height; i++) {
      for (const model of models) now[model] = all[model]?.[i];
      let colour = layer.paint?.(label?.[i], ids?.[i], now) ?? null;
      if (state.pointed !== null && label?.[i] !== state.pointed && ids?.[i] !== state.pointed) colour = [255, 255, 255];
      if (colour) values.set([...colour, 255], 4 * i);
    }
    sheet.getContext("2d").putImageData(pixels, 0, 0);
    pen.globalAlpha = by("opacity").value / 100;
    if (layer.picture) pen.drawImage(layer.picture(), 0, 0, width, height);
    pen.drawImage(sheet, 0, 0);
    pen.globalAlpha = 1;
  };

  const legend = () => {
    const swatch = colour => { const made = element("span", {className: "swatch"}); made.style.background = `rgb(${colour})`; return made; };
    const head = element("tr", {}, element("th", {textContent: page.palette.length ? "class | maskige" : "class"}), ...models.map(model => element("th", {textContent: "IoU " + short(model)})));
    by("legend").tHead.replaceChildren(head);
    by("legend").tBodies[0].replaceChildren(...state.picture.classes.map(([id, pixels, iou]) => {
      const name = element("td", {title: `${page.names[id]}: ${pixels} pixels in the label`}, swatch(page.colours[id]), ...page.palette.length ? [swatch(page.palette[id])] : [], page.names[id]);
      const row = element("tr", {}, name, ...models.map(model => element("td", {textContent: percent(iou[model])})));
      row.dataset.id = id;
      row.addEventListener("pointerenter", () => { state.pointed = id; paint(); });
      row.addEventListener("pointerleave", () => { state.pointed = null; paint(); });
      return row;
    }));
  };

  canvas.addEventListener("pointermove", event => {
    const {width, height} = state.picture, box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height); // object-fit: contain, at the left top
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale].map(Math.floor);
    if (x < 0 || y < 0 || x >= width || y >= height || !state.arrays) return;
    const name = id => id === undefined || id === null ? "–" : id === IGNORED ? "ignored" : page.names[id];
    const at = array => array?.[y * width + x];
    by("under").textContent = `label: ${name(at(state.arrays.label))}` + models.map(model => `; ${page.models[model]}: ${name(at(state.arrays[model]))}`).join("");
    for (const row of by("legend").tBodies[0].rows) row.classList.toggle("pointed", Number(row.dataset.id) === at(state.arrays.label));
  });
  canvas.addEventListener("pointerleave", () => { by("under").textContent = EXPLAINED[state.layer]; });

  const list = () => {
    const chosen = members();
    by("thumbs").replaceChildren(...chosen.map(picture => {
      const image = picture.photo ? element("img", {src: picture.photo, alt: ""}) : element("span", {className: "blank"});
      const button = element("button", {type: "button", title: picture.name}, image,
        models.map(model => `${short(model)} ${percent(picture.mIoU[model])}`).join(" · "));
      button.picture = picture;
      button.addEventListener("click", () => show(picture));
      return button;
    }));
    show(chosen[0]);
  };
  const radio = (holder, name, value, text, choose) => {
    const input = element("input", {type: "radio", name, value});
    input.addEventListener("change", choose);
    by(holder).append(element("label", {}, input, " " + text));
  };
  for (const model of models) radio("choose-model", "model", model, page.models[model], () => { state.model = model; refresh(); });
  for (const layer of Object.keys(LAYERS)) {
    if (layer === "FT against FF" && models.length < 2) continue;
    radio("choose-layer", "layer", layer, layer, () => { state.layer = layer; refresh(); });
  }
  for (const {split, reason} of groups) by("choose-group").append(element("option", {textContent: `${split}: ${reason}`}));
  by("choose-group").addEventListener("change", list);
  by("opacity").addEventListener("input", () => paint());
  addEventListener("keydown", event => {
    const box = by("viewer").getBoundingClientRect();
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !/radio|range/.test(event.target.type);
    if (typing || event.ctrlKey || event.altKey || event.metaKey || box.bottom < 80 || box.top > innerHeight - 80) return;
    const chosen = members(), place = chosen.indexOf(state.picture), layer = Object.keys(LAYERS)[Number(event.key) - 1];
    if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && event.target.type === undefined) show(chosen[(place + (event.key === "ArrowRight" ? 1 : chosen.length - 1)) % chosen.length]);
    else if (event.key === "m") { state.model = models[(models.indexOf(state.model) + 1) % models.length]; refresh(); }
    else if (layer && LAYERS[layer].needs(state.picture)) { state.layer = layer; refresh(); }
    else return;
    event.preventDefault();
  });
  by("viewer").hidden = false;
  if (!page.pictures.some(p => p.label && Object.keys(p.predictions).length)) state.layer = page.pictures.some(p => p.label) ? "label" : "prediction";
  list();
}
