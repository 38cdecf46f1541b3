"use strict";
// The page of `serve`: files in, jobs, results. All text that came from a file or a command is set as text, never as markup.
const $ = id => document.getElementById(id);
const make = (tag, parent, set = {}) => {
  const { data, ...rest } = set, made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(data || {})) made.setAttribute(name, value);
  return parent.appendChild(made);
};
const size = bytes => bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
const clock = s => s < 90 ? `${Math.round(s)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
const trouble = text => { $("trouble").textContent = text; $("trouble").hidden = !text; };
let state = null, chosen = null;
const shown = new Map();  // key of a job → its article

async function ask(url, options = {}) {
  let answer;
  try { answer = await fetch(url, { credentials: "same-origin", ...options }); }
  catch { throw new Error("The server does not answer. Was it stopped?"); }
  const kind = answer.headers.get("content-type") || "";
  const body = kind.includes("json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(body.error || `The server answered ${answer.status}.`);
  return body;
}
const post = (url, body) => ask(url, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

// Files ------------------------------------------------------------------------------------------------------------------
async function send(file) {
  const reader = state.readers.find(r => r.suffixes.some(end => file.name.toLowerCase().endsWith(end)));
  const most = state.limit;
  trouble("");
  if (!reader) return trouble(`Expected ${state.readers.map(r => r.label).join(" or ")}; got ${file.name}.`);
  if (file.size > most) return trouble(`Expected a file of at most ${size(most)}; got ${size(file.size)}. Start the server with a larger --max-upload.`);
  $("sending").textContent = `Reading ${file.name} (${size(file.size)}) …`;
  try {
    const made = await ask(`/api/uploads?reader=${reader.name}&name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    state.uploads.push(made);
    choose(made);
  } catch (error) { trouble(error.message); }
  $("sending").textContent = "";
}
function choose(upload) {
  chosen = upload;
  $("uploads").replaceChildren();
  for (const one of state.uploads) {
    const row = make("label", $("uploads"));
    make("input", row, { type: "radio", name: "upload", checked: one === upload, onchange: () => choose(one) });
    make("span", row, { textContent: one.label });
    make("small", row, { textContent: one.facts });
  }
  $("scan").replaceChildren();
  if (upload && upload.volume) {
    const host = make("div", $("scan"), { className: "viewer" });
    radiataViewer(host, { stamp: "Not for clinical use", volumes: [{ ...upload.volume }], overlays: [], compare: null, overlay: null });
  }
  for (const button of document.querySelectorAll(".card button")) button.disabled = !ready(button.dataset.reads);
}
const ready = reads => !reads || (chosen && chosen.reader === reads);

// What to do -------------------------------------------------------------------------------------------------------------
function card(preset) {
  const box = make("form", $("presets"), { className: "card" }), fields = {};
  make("h3", box, { textContent: preset.title });
  make("p", box, { textContent: preset.text });
  for (const field of preset.fields) {
    const label = make("label", box, { textContent: field.label });
    if (field.kind === "choice") {
      const select = make("select", label);
      for (const [word, said] of Object.entries(field.options)) make("option", select, { value: word, textContent: said });
      fields[field.name] = () => select.value;
    } else {
      const input = make("input", label, { type: "number", min: field.low, max: field.high, step: field.step, value: field.default, required: true });
      fields[field.name] = () => +input.value;
    }
  }
  const button = make("button", box, { type: "submit", textContent: "Start", disabled: !ready(preset.reads), data: { "data-reads": preset.reads || "", "data-key": preset.key } });
  button.setAttribute("aria-label", `Start: ${preset.title}`);
  box.onsubmit = async event => {
    event.preventDefault();
    trouble("");
    const values = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, value()]));
    try {
      const job = await post("/api/jobs", { preset: preset.key, upload: preset.reads && chosen ? chosen.key : null, values });
      draw(job);
      shown.get(job.key).box.scrollIntoView({ block: "nearest" });
      watch();
    } catch (error) { trouble(error.message); }
  };
}

// Jobs -------------------------------------------------------------------------------------------------------------------
function article(job) {
  const box = make("article", document.createDocumentFragment(), { className: "job" });
  $("jobs").prepend(box);
  const head = make("h3", box, { textContent: job.title });
  const on = make("small", head, { textContent: job.on }), tag = make("span", head, { className: "state" }), time = make("small", head);
  const stop = make("button", head, { type: "button", className: "plain", textContent: "stop" });
  stop.onclick = () => post(`/api/jobs/${job.key}/stop`, {}).catch(error => trouble(error.message));
  const bar = make("progress", box, { max: 1 });
  bar.setAttribute("aria-label", `progress of ${job.title}`);
  const said = make("p", box, { className: "quiet" }), view = make("div", box), files = make("div", box, { className: "downloads" });
  const log = make("details", box);
  make("summary", log, { textContent: "what the command said", className: "quiet" });
  const lines = make("pre", log);
  const made = { box, on, tag, time, stop, bar, said, view, files, log, lines, ended: false };
  shown.set(job.key, made);
  $("none").hidden = true;
  return made;
}
function draw(job) {
  const a = shown.get(job.key) || article(job), over = ["done", "failed", "stopped"].includes(job.state);
  a.tag.textContent = job.state;
  a.tag.className = `state ${job.state}`;
  a.time.textContent = job.seconds ? clock(job.seconds) : "";
  a.stop.hidden = a.bar.hidden = over;
  if (job.share === null) a.bar.removeAttribute("value"); else a.bar.value = job.share;
  a.said.textContent = over && job.state !== "failed" ? "" : job.lines.at(-1) || "";
  a.lines.textContent = job.lines.join("\n");
  if (!over || a.ended) return;
  a.ended = true;
  a.box.dataset.ended = job.state;
  for (const file of job.files) {
    const link = make("a", a.files, { href: file.url, textContent: `${file.name} (${size(file.bytes)})` });
    link.download = file.name;
    if (file.name.endsWith(".html")) make("a", a.files, { href: `${file.url}?show`, target: "_blank", rel: "noopener", textContent: "open the report" });
  }
  if (job.volumes) ask(`/api/jobs/${job.key}/view`).then(page => radiataViewer(make("div", a.view, { className: "viewer" }), page)).catch(error => trouble(error.message));
}
let watching = false;
async function watch() {
  if (watching) return;
  watching = true;
  try {
    for (let busy = true; busy;) {
      const now = await ask("/api/state");
      now.jobs.forEach(draw);
      busy = now.jobs.some(job => job.state === "waiting" || job.state === "running");
      if (busy) await new Promise(done => setTimeout(done, 500));
    }
  } catch (error) { trouble(error.message); }
  watching = false;
}

(async () => {
  try { state = await ask("/api/state"); } catch (error) { return trouble(error.message); }
  const uploads = state.presets.some(preset => preset.reads);
  $("files").hidden = !uploads;
  if (uploads) $("what").querySelector("h2").textContent = "2 · What to do";
  $("accepted").textContent = `${state.readers.map(r => r.label).join(", ")}; at most ${size(state.limit)}. It stays on this machine.`;
  $("file").accept = state.readers.flatMap(r => r.suffixes).join(",");
  state.presets.forEach(card);
  if (state.uploads.length) choose(state.uploads.at(-1));
  state.jobs.forEach(draw);
  $("pages").hidden = !state.reports.length;
  for (const report of state.reports) make("a", make("li", $("reports")), { href: report.url, target: "_blank", rel: "noopener", textContent: report.name });
  $("file").onchange = () => { if ($("file").files[0]) send($("file").files[0]); $("file").value = ""; };
  const drop = $("drop");
  drop.ondragover = event => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = event => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  };
  document.body.dataset.ready = "yes";
  watch();
})();
