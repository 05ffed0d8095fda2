"use strict";
const find = (selector) => document.querySelector(selector);
const make = (tag, fields = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), fields);
  node.append(...children);
  return node;
};
const PAGE_ROWS = 50;
const album = JSON.parse(find("#data-album").textContent);
const view = { column: null, down: false, page: 0, rows: [] };
let table;

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// what a row has
const path = (row) => table.sources[table.rows.source[row]];
const fileName = (row) => path(row).split("/").pop();
const reason = (row) => table.reasons[table.rows.reason[row]];
const limitOf = (row) => table.limits[table.rows.limit[row]];
const percent = (share) => (share === null ? "" : `${(100 * share).toFixed(1)} %`);
const clock = (seconds) => {
  const minutes = Math.floor(seconds / 60);
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
};
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;  // for a shell
const link = (row) => {
  const place = path(row).split("/").map(encodeURIComponent).join("/");
  return `file://${place}#t=${table.rows.start_s[row]},${table.rows.end_s[row]}`;
};
const room = (row, limit) => {  // as Threshold.headroom in curation/limits.py
  const value = table.scores[limit.column][row];
  const bound = limit.value === null ? table.scores[limit.bound][row] : limit.value;
  if (value === null || bound === null || bound === 0) return null;
  const far = ((limit.score.startsWith("|") ? Math.abs(value) : value) - bound) / Math.abs(bound);
  return limit.rising ? far : -far;
};

// the table of clips
const columns = () => [
  { title: "source", sort: path, show: fileName },
  { title: "from", sort: (row) => table.rows.start_s[row], show: (row) => clock(table.rows.start_s[row]), number: true },
  { title: "s", sort: (row) => table.rows.end_s[row] - table.rows.start_s[row], number: true,
    show: (row) => (table.rows.end_s[row] - table.rows.start_s[row]).toFixed(2) },
  { title: "reason", sort: reason, show: reason },
  { title: "headroom", sort: (row) => (table.rows.headroom[row] === null ? null : Math.abs(table.rows.headroom[row])), show: (row) => percent(table.rows.headroom[row]), number: true },
  { title: "limit", sort: (row) => limitOf(row)?.text ?? null, show: (row) => limitOf(row)?.text ?? "" },
  ...[...new Set(table.limits.map((limit) => limit.column))].map((name) => ({
    title: name, sort: (row) => table.scores[name][row], show: (row) => table.scores[name][row] ?? "", number: true,
  })),
];

function select() {
  const wanted = find("#reason").value, text = find("#search").value.toLowerCase(), near = find("#near").checked;
  const matches = table.sources.map((source) => source.toLowerCase().includes(text));
  view.rows = [];
  for (let row = 0; row < table.rows.key.length; row++) {
    if (wanted && reason(row) !== wanted) continue;
    if (text && !matches[table.rows.source[row]] && !table.rows.key[row].includes(text)) continue;
    if (near && !(Math.abs(table.rows.headroom[row] ?? 1) <= 0.1)) continue;
    view.rows.push(row);
  }
  view.page = 0;
  order();
}

function order() {
  if (view.column) {
    const values = new Map(view.rows.map((row) => [row, view.column.sort(row)]));
    const sign = view.down ? -1 : 1;
    view.rows.sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (x === y) return a - b;
      if (x === null) return 1;  // what is missing comes last, either way
      if (y === null) return -1;
      return x < y ? -sign : sign;
    });
  }
  draw();
}

function draw() {
  const first = view.page * PAGE_ROWS, shown = view.rows.slice(first, first + PAGE_ROWS);
  find("#table thead").replaceChildren(make("tr", {}, ...view.columns.map((column) => {
    const arrow = column === view.column ? (view.down ? " ▾" : " ▴") : "";
    return make("th", { textContent: column.title + arrow, className: column.number ? "number" : "", onclick: () => sortBy(column) });
  })));
  find("#table tbody").replaceChildren(...shown.map((row) => make("tr", { onclick: () => open(row) },
    ...view.columns.map((column) => make("td", {
      textContent: column.show(row), title: column.title === "source" ? path(row) : "", className: column.number ? "number" : "",
    })))));
  find("#count").textContent = `${view.rows.length} of ${table.rows.key.length} clips`;
  find("#page").textContent = view.rows.length ? `${first + 1} to ${first + shown.length} of ${view.rows.length}` : "none";
}

function sortBy(column) {
  view.down = view.column === column && !view.down;
  view.column = column;
  view.page = 0;
  order();
}

function turn(step) {
  const last = Math.max(0, Math.ceil(view.rows.length / PAGE_ROWS) - 1);
  view.page = Math.min(last, Math.max(0, view.page + step));
  draw();
}

// pictures
const screenOf = (picture) => make("span", { className: picture?.overlay ? "screen double" : "screen" });
const video = (picture) => make("video", { src: picture.preview, muted: true, loop: true, autoplay: true, playsInline: true });

function card(row) {
  const picture = album.pictures[row], screen = screenOf(picture);
  const node = make("button", { className: "card", onclick: () => open(row) }, screen,
    make("small", { textContent: fileName(row), title: path(row) }),
    make("small", { className: "quiet", textContent: `${clock(table.rows.start_s[row])} ${percent(table.rows.headroom[row])} ${limitOf(row)?.column ?? ""}` }));
  if (picture) {
    const still = make("img", { src: picture.poster, alt: "" });
    screen.append(still);
    // once: a click that finds its picture replaced between button down and up is none
    node.onmouseenter = node.onfocus = () => screen.firstChild === still && screen.replaceChildren(video(picture));
    node.onmouseleave = node.onblur = () => screen.replaceChildren(still);
  } else screen.append(make("small", { className: "quiet", textContent: "no picture: gone, or not to be decoded" }));
  return node;
}

function drawAlbums() {
  find("#albums").replaceChildren(...album.reasons.map((each) => make("div", { className: "album" },
    make("h3", {}, each.reason, make("small", { className: "quiet", textContent: ` ${each.rows.length} of ${each.of} clips. ${each.meaning}` })),
    make("div", { className: "cards" }, ...each.rows.map(card)))));
}

// drawings: SVG by hand, of a few numbers
function drawing(width, height, ...shapes) {
  const make = (name, fields) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(fields)) key === "text" ? (node.textContent = value) : node.setAttribute(key, value);
    return node;
  };
  const svg = make("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(...shapes.map(([name, fields]) => make(name, fields)));
  return svg;
}

function waveform(picture) {
  const width = 560, half = 40, step = width / picture.wave.length;
  const speech = (picture.speech ?? []).map(([from, to]) => ["rect", { x: from * width, y: 0, width: (to - from) * width, height: 2 * half, fill: "#2a9d8f55" }]);
  const bars = picture.wave.map((loud, i) => `M${(i * step).toFixed(1)} ${half - loud * half / 100}V${half + loud * half / 100 + 0.5}`).join("");
  return drawing(width, 2 * half, ...speech, ["path", { d: bars, stroke: "#808890", "stroke-width": Math.max(1, step - 1) }]);
}

function lagCurve(picture) {
  const width = 280, height = 110, lag = (picture.curve.length - 1) / 2;
  const top = Math.max(...picture.curve, 0.1), bottom = Math.min(...picture.curve, 0);
  const x = (i) => 10 + (i * (width - 20)) / (2 * lag), y = (value) => 8 + ((top - value) * (height - 30)) / (top - bottom);
  const best = picture.curve.indexOf(Math.max(...picture.curve));
  return drawing(width, height,
    ["path", { d: `M10 ${y(0)}H${width - 10}`, stroke: "#8886" }],
    ["path", { d: `M${x(lag)} 8V${height - 20}`, stroke: "#8886" }],
    ["path", { d: "M" + picture.curve.map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("L"), fill: "none", stroke: "#2a9d8f", "stroke-width": 2 }],
    ["circle", { cx: x(best), cy: y(picture.curve[best]), r: 4, fill: "#e76f51" }],
    ["text", { x: 4, y: height - 4, text: `-${lag}` }], ["text", { x: x(lag) - 3, y: height - 4, text: "0" }],
    ["text", { x: width - 24, y: height - 4, text: `+${lag}` }],
    ["text", { x: width / 2 + 20, y: height - 4, text: `best at ${best - lag}: ${picture.curve[best].toFixed(2)}` }]);
}

// one clip
function numbers(row) {
  const limited = table.limits.filter((limit) => table.scores[limit.column][row] !== null).map((limit) => {
    const spare = room(row, limit), bound = limit.value ?? table.scores[limit.bound][row];
    return make("tr", {}, make("td", { textContent: limit.stage }), make("td", { textContent: limit.score, title: table.meanings[limit.column] }),
      make("td", { textContent: table.scores[limit.column][row], className: spare < 0 ? "number over" : "number" }),
      make("td", { textContent: `${limit.sign} ${bound ?? "not known"}` }), make("td", { textContent: limit.bound }),
      make("td", { textContent: percent(spare), className: "number" }));
  });
  const names = new Set(table.limits.map((limit) => limit.column));
  const others = Object.keys(table.scores).filter((name) => !names.has(name) && table.scores[name][row] !== null);
  const head = ["stage", "score", "value", "threshold", "setting", "headroom"].map((textContent) => make("th", { textContent }));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...limited, ...others.map((name) =>
    make("tr", { className: "quiet" }, make("td"), make("td", { textContent: name, title: table.meanings[name] }),
      make("td", { textContent: table.scores[name][row], className: "number" })))));
}

function open(row) {
  const picture = album.pictures[row], seconds = [table.rows.start_s[row], table.rows.end_s[row]];
  const media = make("div", { className: "media" });
  if (picture) {
    const screen = screenOf(picture);
    screen.append(video(picture));
    const sound = make("div", {}, make("p", { className: "quiet", textContent: picture.wave.length
      ? `sound of ${clock(picture.heard_s[0])} to ${clock(picture.heard_s[1])}; ${picture.speech ? "green: somebody speaks" : "where somebody speaks is stored of crops only"}`
      : "no sound to show" }));
    if (picture.wave.length) sound.append(waveform(picture));
    if (picture.curve.length) sound.append(make("p", { className: "quiet", textContent: "how well lips and voice agree, by frames that the sound comes late" }), lagCurve(picture));
    media.append(screen, sound);
  } else media.append(make("p", { className: "quiet", textContent: "No picture: only some clips of each reason have one (Gallery), and none whose source is gone, failed, or does not decode here." }));
  const shift = table.rows.shift[row];
  find("#details").replaceChildren(
    make("h3", { textContent: `${reason(row)}: ${fileName(row)} ${clock(seconds[0])} to ${clock(seconds[1])}` }),
    make("p", {}, make("a", { href: link(row), textContent: path(row), target: "_blank", rel: "noopener" }),
      ` from ${seconds[0].toFixed(2)} s to ${seconds[1].toFixed(2)} s${shift ? `, sound moved by ${shift} frames` : ""}`),
    make("p", {}, make("code", { textContent: `python -m curation.review.explain ${quoted(table.output)} ${quoted(path(row))}` })),
    ...(table.rows.detail[row] ? [make("pre", { textContent: table.rows.detail[row] })] : []),
    media, numbers(row), make("p", { className: "quiet", textContent: `key ${table.rows.key[row]}` }));
  history.replaceState(null, "", `#clip=${table.rows.key[row]}`);
  if (!find("#clip").open) find("#clip").showModal();
}

function openLinked() {
  const [, key] = location.hash.match(/^#clip=(.+)$/) ?? [];
  const row = key ? table.rows.key.indexOf(decodeURIComponent(key)) : -1;
  if (row >= 0) open(row);
}

async function start() {
  table = await unpack(find("#data-table").textContent);
  view.columns = columns();
  view.column = view.columns.find((column) => column.title === "headroom");
  find("#reason").append(...table.reasons.map((name) => make("option", { value: name, textContent: name })));
  for (const name of ["#reason", "#search", "#near"]) find(name).oninput = select;
  find("#back").onclick = () => turn(-1);
  find("#forth").onclick = () => turn(1);
  find("#overlay").onchange = (event) => document.body.classList.toggle("overlay", event.target.checked);
  find("#clip").onclose = () => { find("#details").replaceChildren(); history.replaceState(null, "", "#clips"); };
  for (const node of document.querySelectorAll("[data-reason]")) node.onclick = () => { find("#reason").value = node.dataset.reason; select(); };
  drawAlbums();
  select();
  openLinked();
  onhashchange = openLinked;
  document.body.dataset.ready = "yes";
}
start();
