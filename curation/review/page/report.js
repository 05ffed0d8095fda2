"use strict";
const find = (selector) => document.querySelector(selector);
const make = (tag, fields = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), fields);
  node.append(...children);
  return node;
};
const PAGE_ROWS = 50;
const album = JSON.parse(find("#data-album").textContent);
const view = { column: null, down: false, page: 0, rows: [], moved: new Map(), after: null };  // moved: limit -> value
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
  const field = (name) => find(name).value, bound = (name) => (field(name) === "" ? null : Number(field(name)));
  const wanted = field("#reason"), text = field("#search").toLowerCase(), near = find("#near").checked;
  const score = field("#score"), from = bound("#from"), to = bound("#to"), change = view.after ? field("#change") : "";
  const matches = table.sources.map((source) => source.toLowerCase().includes(text));
  view.rows = [];
  for (let row = 0; row < table.rows.key.length; row++) {
    if (wanted && reason(row) !== wanted) continue;
    if (text && !matches[table.rows.source[row]] && !table.rows.key[row].includes(text)) continue;
    if (near && !(Math.abs(table.rows.headroom[row] ?? 1) <= 0.1)) continue;
    if (score) {
      const value = shown(score, row);
      if (value === null || (from !== null && value < from) || (to !== null && value > to)) continue;
    }
    if (change && changeOf(row) !== change) continue;
    view.rows.push(row);
  }
  view.page = 0;
  order();
  keepState();
}

// a score by the name it has on the page: `|score|` is its size
const shown = (name, row) => {
  const value = table.scores[name.replaceAll("|", "")][row];
  return value !== null && name.startsWith("|") ? Math.abs(value) : value;
};

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
  const columns = view.after ? [...view.columns.slice(0, 4), wouldBe, ...view.columns.slice(4)] : view.columns;
  const focused = document.activeElement?.closest?.("#table th") && document.activeElement.dataset.title;
  find("#table thead").replaceChildren(make("tr", {}, ...columns.map((column) => {
    const sorted = column === view.column, arrow = sorted ? (view.down ? " ▾" : " ▴") : "";
    const button = make("button", { type: "button", textContent: column.title + arrow, onclick: () => sortBy(column) });
    button.dataset.title = column.title;
    const head = make("th", { className: column.number ? "number" : "", scope: "col" }, button);
    head.setAttribute("aria-sort", sorted ? (view.down ? "descending" : "ascending") : "none");
    return head;
  })));
  if (focused) [...document.querySelectorAll("#table th button")].find((button) => button.dataset.title === focused)?.focus();
  find("#table tbody").replaceChildren(...shown.map((row) => make("tr", { onclick: () => open(row) },
    ...columns.map((column, i) => {
      const text = column.show(row);
      const cell = make("td", { title: column.title === "source" ? path(row) : "", className: column.number ? "number" : "" });
      cell.append(i ? text : make("button", { type: "button", className: "link", textContent: text }));
      return cell;
    }))));
  find("#count").textContent = `${view.rows.length} of ${table.rows.key.length} clips`;
  find("#page").textContent = view.rows.length ? `${first + 1} to ${first + shown.length} of ${view.rows.length}` : "none";
}

function sortBy(column) {
  view.down = view.column === column && !view.down;
  view.column = column;
  view.page = 0;
  order();
  keepState();
}

function turn(step) {
  const last = Math.max(0, Math.ceil(view.rows.length / PAGE_ROWS) - 1);
  view.page = Math.min(last, Math.max(0, view.page + step));
  draw();
}

// moved thresholds: as curation/refilter.py judges, from the verdicts of curation/review/replay.py
const KEPT = -1, UNKNOWN = -2;  // else the place of the stage that drops the clip
const inside = (limit, bound, value) =>
  ({ ">=": value >= bound, ">": value > bound, "<=": value <= bound, "<": value < bound })[limit.sign];

function judgeAnew() {
  if (!view.moved.size) return null;
  const { filters, turns, left, fixed } = table.replay;
  const moves = filters.map((filter) => [...view.moved].find(([place]) => table.limits[place].stage === filter.name));
  const after = new Int16Array(table.rows.key.length).fill(KEPT);
  for (let row = 0; row < after.length; row++) {
    let verdict = left[row] >= 0 ? left[row] : KEPT;
    for (let i = 0; i < filters.length; i++) {
      if (left[row] >= 0 && left[row] < filters[i].place) break;
      let code = filters[i].codes[row];
      if (code !== "2" && moves[i]) {
        const [place, bound] = moves[i], limit = table.limits[place], value = shown(limit.score, row);
        const crossed = value !== null && inside(limit, limit.value, value) !== inside(limit, bound, value);
        if (crossed && turns[place][row] === "1") code = code === "1" ? "0" : "1";
      }
      if (code === "2") { verdict = UNKNOWN; break; }
      if (code === "0") { verdict = filters[i].place; break; }
    }
    after[row] = verdict;
  }
  for (const row of fixed) after[row] = table.replay.stages.length;  // errors and copies stay what they are
  return after;
}

const isKept = (row) => reason(row) === "kept";
const length = (row) => table.rows.end_s[row] - table.rows.start_s[row];
function changeOf(row) {
  if (view.after[row] === UNKNOWN) return "unknown";
  return isKept(row) === (view.after[row] === KEPT) ? "" : isKept(row) ? "lost" : "gained";
}
const wouldBe = {
  title: "would be", sort: (row) => wouldBe.show(row),
  show: (row) => (view.after[row] === KEPT ? "kept" : view.after[row] === UNKNOWN ? "never measured"
    : table.replay.stages[view.after[row]] ?? "as it is"),
};

const spelled = (limit, value) => {  // a number as YAML reads it into the setting's type
  const text = String(limit.whole ? Math.round(value) : Number(Number(value).toPrecision(4)));
  return limit.whole || /[.e]/.test(text) ? text : `${text}.0`;
};
const settings = () => [...view.moved].map(([place, value]) => {
  const limit = table.limits[place];
  return `${limit.stage}.${limit.bound}=${spelled(limit, value)}`;
});

function move(place, value) {
  const limit = table.limits[place];
  for (const other of [...view.moved.keys()]) if (table.limits[other].stage === limit.stage) view.moved.delete(other);
  if (value !== limit.value && Number.isFinite(value)) view.moved.set(place, value);
  settle();
}

function settle() {
  view.after = judgeAnew();
  const sums = { kept: [0, 0], now: [0, 0], gained: [0, 0], lost: [0, 0], unknown: [0, 0] };
  const count = (name, row) => { sums[name][0]++; sums[name][1] += length(row); };
  if (view.after) for (let row = 0; row < view.after.length; row++) {
    if (isKept(row)) count("kept", row);
    if (view.after[row] === KEPT) count("now", row);
    const change = changeOf(row);
    if (change) count(change, row);
  }
  const clips = (name) => `${sums[name][0].toLocaleString("en")} clips, ${clock(sums[name][1])}`;
  const panel = find("#moved");
  panel.hidden = !view.after;
  if (view.after) {
    const command = `python -m curation.refilter ${quoted(table.output)} ${settings().map((text) => `--set ${text}`).join(" ")} --to ${quoted(`${table.output}-refiltered`)}`;
    const copy = make("button", { type: "button", textContent: "copy the command", onclick: () => {
      navigator.clipboard?.writeText(command).then(() => { copy.textContent = "copied"; });
    } });
    panel.replaceChildren(
      make("p", {}, make("b", { textContent: `${clips("now")} kept` }), ` instead of ${clips("kept")}: ${clips("gained")} gained, ${clips("lost")} lost.`),
      ...(sums.unknown[0] ? [make("p", { className: "over", textContent: `${clips("unknown")} would pass and were never measured further: `
        + "the command refuses and lists their sources. Curate them with --score-only first." })] : []),
      make("code", { textContent: command }), copy, " ",
      make("button", { type: "button", textContent: "back to the run's thresholds", onclick: () => { view.moved.clear(); settle(); } }));
  }
  for (const plot of plots) plot.show();
  select();
}

// histograms
const BINS = 40, WIDTH = 290, HEIGHT = 110, BASE = 92;
const plots = [];

function plot(node) {
  const place = node.dataset.limit === undefined ? null : Number(node.dataset.limit);
  const limit = place === null ? null : table.limits[place];
  const relative = limit !== null && limit.value === null;  // the threshold is another score: their ratio is shown
  const name = limit ? limit.score : node.dataset.score;
  const value = (row) => {
    const found = shown(name, row);
    return relative && found !== null ? (table.scores[limit.bound][row] ? found / table.scores[limit.bound][row] : null) : found;
  };
  const line = relative ? 1 : limit?.value ?? null;
  let low = line ?? Infinity, high = line ?? -Infinity;
  for (let row = 0; row < table.rows.key.length; row++) {
    const found = value(row);
    if (found !== null) { low = Math.min(low, found); high = Math.max(high, found); }
  }
  if (!(high > low)) { low -= 0.5; high += 0.5; }
  const counts = Array.from({ length: BINS }, () => [0, 0, 0]), wide = (high - low) / BINS;
  for (let row = 0; row < table.rows.key.length; row++) {
    const found = value(row);
    if (found === null) continue;
    const here = limit && limitOf(row)?.stage === limit.stage;
    counts[Math.min(BINS - 1, Math.floor((found - low) / wide))][isKept(row) ? 0 : here ? 1 : 2]++;
  }
  const top = Math.max(1, ...counts.map((each) => each[0] + each[1] + each[2])), step = WIDTH / BINS;
  const bars = counts.flatMap((each, i) => {
    let y = BASE;
    return each.map((count, kind) => {
      const height = (count / top) * (BASE - 4);
      y -= height;
      return ["rect", { x: i * step, y, width: step - 0.6, height, style: `fill: var(--${["good", "bad", "other"][kind]})` }];
    }).filter(([, shape]) => shape.height);
  });
  const x = (number) => Math.min(WIDTH, Math.max(0, ((number - low) / (high - low)) * WIDTH));
  const short = (number) => String(Number(number.toPrecision(3)));
  const hits = relative ? [] : counts.map((each, i) => ["rect", { x: i * step, y: 0, width: step, height: BASE, class: "hit", "data-bin": i }]);
  const svg = drawing(WIDTH, HEIGHT, ...bars,
    ["path", { d: `M0 ${BASE}H${WIDTH}`, stroke: "#8888" }],
    ...(line === null ? [] : [["path", { class: "line", d: `M${x(line)} 0V${BASE}`, stroke: "currentColor", "stroke-dasharray": "4 3" }]]),
    ["text", { x: 0, y: HEIGHT - 4, text: short(low) }], ["text", { x: WIDTH, y: HEIGHT - 4, "text-anchor": "end", text: short(high) }],
    ["text", { x: WIDTH / 2, y: HEIGHT - 4, "text-anchor": "middle", text: relative ? `${name} / ${limit.bound}` : name }], ...hits);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `histogram of ${name}, ${short(low)} to ${short(high)}${line === null ? "" : `, threshold ${short(line)}`}`);
  svg.onclick = (event) => {
    const bin = event.target.dataset?.bin;
    if (bin === undefined) return;
    find("#score").value = name;
    find("#from").value = short(low + bin * wide);
    find("#to").value = short(low + (Number(bin) + 1) * wide);
    select();
    find("#clips").scrollIntoView();
  };
  node.replaceChildren(svg);
  if (!limit || relative) return { show() {} };
  const handle = (type) => {
    const step = limit.whole ? 1 : type === "range" ? (high - low) / 500 : "any";
    const input = make("input", { type, step, ...(type === "range" ? { min: low, max: high } : {}) });
    input.setAttribute("aria-label", `${limit.bound} of ${limit.stage}`);
    input.oninput = () => input.value !== "" && move(place, Number(spelled(limit, input.value)));
    return input;
  };
  const slider = handle("range"), number = handle("number");
  node.append(make("div", { className: "handle" }, slider, number));
  return { show() {
    const now = view.moved.get(place) ?? limit.value;
    if (document.activeElement !== slider) slider.value = now;
    if (document.activeElement !== number) number.value = Number(now.toPrecision(6));
    svg.querySelector(".line").setAttribute("d", `M${x(now)} 0V${BASE}`);
  } };
}

// what is chosen, in the address
const CHOSEN = ["reason", "search", "score", "from", "to", "change"];
function keepState(clip = null) {
  const state = new URLSearchParams();
  for (const name of CHOSEN) if (find(`#${name}`).value) state.set(name, find(`#${name}`).value);
  if (find("#near").checked) state.set("near", "1");
  if (view.column?.title !== "headroom" || view.down) state.set("sort", (view.down ? "-" : "") + view.column.title);
  for (const text of settings()) state.append("set", text);
  if (clip !== null) state.set("clip", clip);
  history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
}

function readState() {
  if (!location.hash.includes("=")) return false;
  const state = new URLSearchParams(location.hash.slice(1));
  for (const name of CHOSEN) find(`#${name}`).value = state.get(name) ?? "";
  find("#near").checked = state.has("near");
  const sort = state.get("sort") ?? "headroom";
  view.down = sort.startsWith("-");
  view.column = view.columns.find((column) => column.title === sort.replace(/^-/, "")) ?? view.columns[0];
  view.moved.clear();
  for (const text of state.getAll("set")) {
    const [name, value] = text.split("="), place = table.limits.findIndex((limit) => `${limit.stage}.${limit.bound}` === name);
    if (place >= 0 && table.limits[place].value !== null) view.moved.set(place, Number(value));
  }
  settle();
  const row = state.has("clip") ? table.rows.key.indexOf(state.get("clip")) : -1;
  if (row >= 0) open(row);
  return true;
}

function save() {
  const cell = (value) => (/[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  const names = Object.keys(table.scores);
  const head = ["key", "source", "start_s", "end_s", "reason", ...(view.after ? ["would_be"] : []), "limit", "headroom", ...names];
  const lines = view.rows.map((row) => [table.rows.key[row], path(row), table.rows.start_s[row], table.rows.end_s[row], reason(row),
    ...(view.after ? [wouldBe.show(row)] : []), limitOf(row)?.text, table.rows.headroom[row], ...names.map((name) => table.scores[name][row])]);
  const text = [head, ...lines].map((line) => line.map(cell).join(",")).join("\n") + "\n";
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "clips.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// pictures
const screenOf = (picture) => make("span", { className: picture?.overlay ? "screen double" : "screen" });
const video = (picture) => make("video", { src: picture.preview, muted: true, loop: true, autoplay: true, playsInline: true });

function player(picture) {  // with its sound, which a browser allows after a click
  const node = make("video", { src: picture.preview, loop: true, controls: true, playsInline: true });
  node.play().catch(() => { node.muted = true; node.play().catch(() => {}); });
  return node;
}

function card(row) {
  const picture = album.pictures[row], screen = screenOf(picture);
  const node = make("button", { className: "card", onclick: () => open(row) }, screen,
    make("small", { textContent: fileName(row), title: path(row) }),
    make("small", { className: "quiet", textContent: `${clock(table.rows.start_s[row])} ${percent(table.rows.headroom[row])} ${limitOf(row)?.column ?? ""}` }));
  if (picture) {
    const still = make("img", { src: picture.poster, alt: "" });
    screen.append(still);
    // once: a click that finds its picture replaced between button down and up is none
    if (picture.preview) {
      screen.classList.add("plays");
      node.onmouseenter = node.onfocus = () => screen.firstChild === still && screen.replaceChildren(video(picture));
      node.onmouseleave = node.onblur = () => screen.replaceChildren(still);
    }
  } else screen.append(make("small", { className: "quiet", textContent: "no picture: gone, or not to be decoded" }));
  return node;
}

function drawShares() {  // hours by reason, kept first
  const seconds = table.reasons.map(() => 0);
  table.rows.reason.forEach((code, row) => { seconds[code] += length(row); });
  const order = seconds.map((_, code) => code).sort((a, b) => (table.reasons[b] === "kept") - (table.reasons[a] === "kept") || seconds[b] - seconds[a]);
  find("#shares").append(...order.filter((code) => seconds[code]).map((code) => {
    const node = make("div", { title: `${table.reasons[code]} ${clock(seconds[code])}`, className: table.reasons[code] === "kept" ? "kept" : "" });
    node.style.flex = seconds[code];
    node.dataset.reason = table.reasons[code];
    return node;
  }));
  const kept = album.reasons.find((each) => each.reason === "kept");
  find("#first").append(...(kept?.rows ?? []).filter((row) => album.pictures[row]).slice(0, 6).map(card));
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
    screen.append(picture.preview ? player(picture) : make("img", { src: picture.poster, alt: "" }));
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
  keepState(table.rows.key[row]);
  if (!find("#clip").open) find("#clip").showModal();
}

async function start() {
  table = await unpack(find("#data-table").textContent);
  view.columns = columns();
  view.column = view.columns.find((column) => column.title === "headroom");
  const named = (names) => names.map((name) => make("option", { value: name, textContent: name }));
  find("#reason").append(...named(table.reasons));
  const limited = new Map(table.limits.map((limit) => [limit.column, limit.score]));
  find("#score").append(...named(Object.keys(table.scores).map((name) => limited.get(name) ?? name)));
  for (const name of [...CHOSEN, "near"]) find(`#${name}`).oninput = select;
  find("#filters").onsubmit = () => false;
  find("#clear").onclick = () => { find("#filters").reset(); select(); };
  find("#save").onclick = save;
  find("#back").onclick = () => turn(-1);
  find("#forth").onclick = () => turn(1);
  find("#overlay").onchange = (event) => document.body.classList.toggle("overlay", event.target.checked);
  find("#clip").onclose = () => { find("#details").replaceChildren(); keepState(); };
  for (const node of document.querySelectorAll("nav a")) node.onclick = () => { find(node.hash).scrollIntoView(); return false; };
  drawShares();
  for (const node of document.querySelectorAll("[data-reason]")) node.onclick = () => {
    find("#reason").value = node.dataset.reason;
    select();
    find("#clips").scrollIntoView();
  };
  drawAlbums();
  plots.push(...[...document.querySelectorAll(".plot")].map(plot));
  for (const each of plots) each.show();
  if (!readState()) select();
  onhashchange = readState;
  document.body.dataset.ready = "yes";
}
start();
