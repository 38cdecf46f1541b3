"use strict";
/* Three linked planes of 8-bit volumes in RAS order: image, a second image behind a slider, an overlay with its legend.

   A page is { stamp, volumes, overlays, compare: index | null, overlay: index | null }. A volume is { name, kind, unit, shape,
   affine (voxel to mm), low, high, levels, averaged, labels, data | url }: gzip of differences between neighbours along x,
   as base64 or behind a URL. Volumes need not share a grid: those on top are looked up in millimetres, nearest voxel.

   radiataViewer(host, page) fills an element and returns a promise of it; viewers of a report fill themselves. */
const radiataViewer = (() => {
  const LETTERS = ["LR", "PA", "IS"];
  const PLANES = [["axial", 2, 0, 1], ["coronal", 1, 0, 2], ["sagittal", 0, 1, 2]];  // name, across which axis, to the right, up
  const MAPS = {
    spread: ["000004", "1c1044", "4f127b", "812581", "b5367a", "e55064", "fb8761", "fec287", "fcfdbf"],
    difference: ["053061", "2f79b5", "8ec2dd", "dbeaf2", "f7f7f7", "fbceb7", "e48066", "bd2d35", "67001f"],
  };
  const KEYS = "Click a plane, then: arrows move, Page Up and Page Down or the wheel change the slice, z enlarges, o overlay, "
    + "c comparison, [ and ] its slider, s sides, Home centre. Right drag: level and window. Drag the white line: comparison.";
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const make = (tag, parent, set = {}) => {
    const { data, ...rest } = set, made = Object.assign(document.createElement(tag), rest);
    for (const [name, value] of Object.entries(data || {})) made.setAttribute(name, value);
    return parent.appendChild(made);
  };
  const rgb = hex => [0, 2, 4].map(k => parseInt(hex.replace("#", "").slice(k, k + 2), 16));
  const packed = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;  // bytes of ImageData, little endian

  // Voxels --------------------------------------------------------------------------------------------------------------
  function decoded64(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }
  async function load(v) {
    if (v.values) return v;
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is older than 2023 and cannot unpack the volume");
    let body;
    if (v.url) {
      const answer = await fetch(v.url, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(`the volume did not come (${answer.status})`);
      body = answer.body;
    } else body = new Blob([decoded64(v.data)]).stream();
    const unpacked = await new Response(body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    const values = new Uint8Array(unpacked);
    for (let i = 1; i < values.length; i++) values[i] += values[i - 1];
    v.data = null;
    v.values = values;
    return v;
  }
  const times = (m, p) => m.slice(0, 3).map(r => r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
  function inverse(m) {
    const [a, b, c] = m, cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const columns = [cross(b, c), cross(c, a), cross(a, b)], det = a[0] * columns[0][0] + a[1] * columns[0][1] + a[2] * columns[0][2];
    const rows = [0, 1, 2].map(i => columns.map(column => column[i] / det));
    return rows.map(r => [...r, -(r[0] * a[3] + r[1] * b[3] + r[2] * c[3])]);
  }
  const spacing = v => [0, 1, 2].map(k => Math.hypot(v.affine[0][k], v.affine[1][k], v.affine[2][k]));
  function at(v, world) {  // the stored value at a place in mm, or null outside
    const i = times(inverse(v.affine), world).map(Math.round);
    return i.some((x, k) => x < 0 || x >= v.shape[k]) ? null : v.values[i[0] + v.shape[0] * (i[1] + v.shape[1] * i[2])];
  }

  // Colours: 256 packed entries a volume ---------------------------------------------------------------------------------
  function greys(v, level, width) {
    const top = v.levels - 1;
    return Uint32Array.from({ length: 256 }, (_, i) => {
      const grey = clamp(Math.round((i / top * 255 - level + width / 2) * 255 / width), 0, 255);
      return packed(grey, grey, grey, 255);
    });
  }
  function colour(kind, x) {  // 0 to 1
    const stops = MAPS[kind], k = Math.min(Math.floor(x * (stops.length - 1)), stops.length - 2);
    const f = x * (stops.length - 1) - k, low = rgb(stops[k]), high = rgb(stops[k + 1]);
    return low.map((c, i) => Math.round(c + f * (high[i] - c)));
  }
  function tinted(v, only) {
    if (v.kind === "labels") {
      const table = new Uint32Array(256);
      v.labels.forEach((label, i) => { if (only === null || only === i + 1) table[i + 1] = packed(...rgb(label[1]), 255); });
      return table;
    }
    const top = v.levels - 1;  // nothing where there is nothing to say: no spread, no difference
    return Uint32Array.from({ length: 256 }, (_, i) => {
      const x = Math.min(i / top, 1), strength = v.kind === "spread" ? x * 5 : Math.max(0, Math.abs(2 * x - 1) - .02) * 5;
      return packed(...colour(v.kind, x), Math.round(255 * Math.min(1, strength)));
    });
  }
  const words = x => Math.abs(x) >= 1e5 ? x.toExponential(2) : `${+x.toPrecision(4)}`;

  return async function view(host, page) {
    const bar = make("div", host, { className: "bar" });
    const labelled = (text, parent = bar) => make("label", parent, { textContent: text });
    const chooser = (text, items, none) => {
      const select = make("select", labelled(text));
      if (none) make("option", select, { value: "", textContent: "none" });
      items.forEach((v, i) => make("option", select, { value: i, textContent: v.name }));
      return select;
    };
    const slider = (text, min, max, value, more = {}) =>
      Object.assign(make("input", labelled(text), { type: "range", min, max }), { step: 1, ...more, value });
    const image = chooser("image ", page.volumes);
    const other = chooser("compare with ", page.volumes, true), split = slider("slider ", 0, 100, 50);
    const over = chooser("overlay ", page.overlays, true), opacity = slider("opacity ", 0, 100, 50);
    const level = slider("level ", 0, 255, 128), width = slider("window ", 1, 255, 255);
    const side = make("button", bar, { type: "button" }), reset = make("button", bar, { type: "button", textContent: "reset" });
    const planes = make("div", host, { className: "planes" });
    const status = make("div", host, { className: "status" });
    const crosshair = make("output", status), cursor = make("output", status, { className: "cursor" });
    const legend = make("div", host, { className: "legend" });
    const help = make("details", host);
    make("summary", help, { textContent: "keys" });
    make("p", help, { textContent: KEYS });
    make("p", host, { className: "note", textContent: page.stamp });

    const state = { radiological: false, only: null, large: null, base: null, with: null, top: null, cross: [0, 0, 0] };
    const views = PLANES.map(([name, axis, across, up], k) => ({
      name, axis, across, up, k,
      canvas: make("canvas", planes, { tabIndex: 0, data: { role: "img", "aria-label": `${name} plane; arrow keys move the crosshair` } }),
      small: document.createElement("canvas"),
    }));
    const flipped = v => state.radiological && v.across === 0;
    const world = () => times(state.base.affine, state.cross);
    const place = p => { state.cross = times(inverse(state.base.affine), p).map((x, i) => clamp(Math.round(x), 0, state.base.shape[i] - 1)); };

    // A plane of any volume, at the voxels of the base: one step of an affine map a voxel.
    function drawn(v, volume, table) {
      const base = state.base, w = base.shape[v.across], h = base.shape[v.up], to = inverse(volume.affine);
      const corner = [...state.cross];
      corner[v.across] = flipped(v) ? w - 1 : 0;
      corner[v.up] = h - 1;
      const start = times(to, times(base.affine, corner));
      const step = axis => [0, 1, 2].map(r => to[r][0] * base.affine[0][axis] + to[r][1] * base.affine[1][axis] + to[r][2] * base.affine[2][axis]);
      const right = step(v.across).map(x => flipped(v) ? -x : x), down = step(v.up).map(x => -x);
      const [nx, ny, nz] = volume.shape, values = volume.values, pixels = new Uint32Array(w * h);
      for (let j = 0; j < h; j++) {
        let x = start[0] + j * down[0] + .5, y = start[1] + j * down[1] + .5, z = start[2] + j * down[2] + .5;
        for (let i = 0; i < w; i++, x += right[0], y += right[1], z += right[2]) {
          const a = Math.floor(x), b = Math.floor(y), c = Math.floor(z);
          if (a >= 0 && b >= 0 && c >= 0 && a < nx && b < ny && c < nz) pixels[j * w + i] = table[values[a + nx * (b + ny * c)]];
        }
      }
      v.small.width = w;
      v.small.height = h;
      v.small.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), w, h), 0, 0);
      return v.small;
    }
    function size(v, room) {  // CSS pixels of a plane
      const step = spacing(state.base), mm = k => state.base.shape[k] * step[k];
      const [w, h] = [mm(v.across), mm(v.up)];
      const all = PLANES.reduce((sum, [, , across]) => sum + mm(across), 0), tall = Math.max(mm(1), mm(2));
      const usual = room < 560 ? room / Math.max(mm(0), mm(1)) : Math.min((room - 16) / all, 520 / tall);
      const scale = state.large === v.k ? Math.min(room / w, .85 * window.innerHeight / h) : usual;
      return [Math.max(8, Math.round(w * scale)), Math.max(8, Math.round(h * scale))];
    }
    function paint() {
      if (!state.base) return;
      const room = planes.clientWidth || 900, dense = window.devicePixelRatio || 1, line = split.value / 100;
      const tables = new Map([state.base, state.with].filter(Boolean).map(v => [v, greys(v, +level.value, +width.value)]));
      for (const v of views) {
        const [w, h] = size(v, room), c = v.canvas, g = c.getContext("2d"), base = state.base;
        c.width = Math.round(w * dense);
        c.height = Math.round(h * dense);
        c.style.width = `${w}px`;
        g.scale(dense, dense);
        g.fillStyle = "#000";
        g.fillRect(0, 0, w, h);
        g.drawImage(drawn(v, base, tables.get(base)), 0, 0, w, h);
        if (state.with) {
          g.save();
          g.beginPath();
          g.rect(line * w, 0, w, h);
          g.clip();
          g.fillRect(0, 0, w, h);
          g.drawImage(drawn(v, state.with, tables.get(state.with)), 0, 0, w, h);
          g.restore();
        }
        if (state.top && +opacity.value) {
          g.globalAlpha = opacity.value / 100;
          g.imageSmoothingEnabled = state.top.kind !== "labels";
          g.drawImage(drawn(v, state.top, tinted(state.top, state.only)), 0, 0, w, h);
          g.globalAlpha = 1;
        }
        marks(v, g, w, h, line);
      }
      told(crosshair, "crosshair", world());
      side.textContent = state.radiological ? "radiological: left is right" : "neurological: left is left";
      split.parentElement.hidden = !state.with;
      opacity.parentElement.hidden = !state.top;
    }
    function marks(v, g, w, h, line) {
      const { shape } = state.base, stroke = (style, ...lines) => {
        g.strokeStyle = style;
        g.beginPath();
        for (const [x0, y0, x1, y1] of lines) { g.moveTo(x0, y0); g.lineTo(x1, y1); }
        g.stroke();
      };
      const text = (words, x, y, align, style = "#ffd24d") => {
        g.textAlign = align;
        g.lineWidth = 3;
        g.strokeStyle = "rgba(0,0,0,.75)";
        g.strokeText(words, x, y);
        g.lineWidth = 1;
        g.fillStyle = style;
        g.fillText(words, x, y);
      };
      const x = (flipped(v) ? shape[v.across] - .5 - state.cross[v.across] : state.cross[v.across] + .5) / shape[v.across] * w;
      const y = (shape[v.up] - .5 - state.cross[v.up]) / shape[v.up] * h;
      stroke("rgba(90,200,255,.7)", [x, 0, x, y - 6], [x, y + 6, x, h], [0, y, x - 6, y], [x + 6, y, w, y]);
      g.font = "12px system-ui, sans-serif";
      g.textBaseline = "middle";
      if (state.with) {
        stroke("rgba(255,255,255,.9)", [line * w, 0, line * w, h]);
        g.fillStyle = "#fff";
        g.beginPath();
        g.arc(line * w, h - 26, 5, 0, 7);
        g.fill();
        text(state.base.name, 5, h - 10, "left", "#fff");
        text(state.with.name, w - 5, h - 10, "right", "#fff");
      }
      g.font = "bold 13px system-ui, sans-serif";
      const pair = flipped(v) ? [...LETTERS[v.across]].reverse() : LETTERS[v.across];
      text(pair[0], 5, h / 2, "left");
      text(pair[1], w - 5, h / 2, "right");
      text(LETTERS[v.up][1], w / 2, 10, "center");
      if (!state.with) text(LETTERS[v.up][0], w / 2, h - 10, "center");
    }
    function told(element, name, where) {
      if (!where) { element.textContent = ""; return; }
      const mm = where.map((x, i) => `${LETTERS[i][x < 0 ? 0 : 1]} ${Math.abs(x).toFixed(1)}`).join("  ");
      const said = [state.base, state.with, state.top].filter(Boolean).map(v => {
        const value = at(v, where);
        if (value === null) return `${v.name}: outside`;
        if (v.kind === "labels") return value ? v.labels[value - 1][0] : "no label";
        return `${v.name} ${words(v.low + value / (v.levels - 1) * (v.high - v.low))}${v.unit ? " " + v.unit : ""}`;
      });
      const averaged = state.base.averaged ? " (averaged for this page)" : "";
      element.textContent = `${name}  ${mm} mm   ${said.join("   ")}${averaged}`;
    }
    function explain() {
      legend.replaceChildren();
      const v = state.top;
      if (!v) return;
      if (v.kind !== "labels") {
        make("span", legend, { textContent: `${words(v.low)} ` });
        const ramp = make("canvas", legend, { width: 128, height: 10, data: { "aria-hidden": "true" } }), g = ramp.getContext("2d");
        for (let i = 0; i < 128; i++) { g.fillStyle = `rgb(${colour(v.kind, i / 127)})`; g.fillRect(i, 0, 1, 10); }
        make("span", legend, { textContent: ` ${words(v.high)} ${v.unit}   ${v.name}` });
        return;
      }
      v.labels.forEach(([name, hex, ml], i) => {
        const chip = make("button", legend, { type: "button", title: "show only this one, and go there", data: { "aria-pressed": "false" } });
        make("i", chip).style.background = hex;
        make("span", chip, { textContent: ml === null ? name : `${name}  ${words(ml)} ml` });
        chip.onclick = () => {
          state.only = state.only === i + 1 ? null : i + 1;
          for (const one of legend.children) one.setAttribute("aria-pressed", String(one === chip && state.only !== null));
          if (state.only) place(middle(v, state.only));
          soon();
        };
      });
    }
    function middle(v, code) {  // mm of the labelled voxel that is nearest to the label's centre
      const [nx, ny] = v.shape, found = [];
      for (let i = 0; i < v.values.length; i++) if (v.values[i] === code) found.push(i);
      const of = i => [i % nx, Math.floor(i / nx) % ny, Math.floor(i / nx / ny)];
      const sum = found.reduce((s, i) => of(i).map((x, k) => s[k] + x), [0, 0, 0]).map(x => x / Math.max(found.length, 1));
      let best = sum, least = Infinity;
      for (const i of found) {
        const p = of(i), d = p.reduce((s, x, k) => s + (x - sum[k]) ** 2, 0);
        if (d < least) [least, best] = [d, p];
      }
      return times(v.affine, best);
    }
    let asked = false;
    const soon = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); } };

    async function choose() {
      crosshair.textContent = "unpacking …";
      try {
        const before = state.base && world();
        const [base, second, top] = await Promise.all([
          load(page.volumes[image.value || 0]),
          other.value === "" ? null : load(page.volumes[other.value]),
          over.value === "" ? null : load(page.overlays[over.value]),
        ]);
        const changed = state.top !== top;
        Object.assign(state, { base, with: second, top });
        if (before) place(before); else state.cross = base.shape.map(n => Math.floor(n / 2));
        if (changed) { state.only = null; explain(); }
        paint();
        host.dataset.ready = "yes";
      } catch (error) {
        crosshair.textContent = `The volume cannot be shown: ${error.message}.`;
        host.dataset.ready = "failed";
      }
    }
    const voxel = (v, event) => {
      const box = v.canvas.getBoundingClientRect(), { shape } = state.base, found = [...state.cross];
      const u = Math.floor((event.clientX - box.left) / box.width * shape[v.across]);
      found[v.across] = clamp(flipped(v) ? shape[v.across] - 1 - u : u, 0, shape[v.across] - 1);
      found[v.up] = clamp(shape[v.up] - 1 - Math.floor((event.clientY - box.top) / box.height * shape[v.up]), 0, shape[v.up] - 1);
      return found;
    };
    const slide = (axis, by) => { state.cross[axis] = clamp(state.cross[axis] + by, 0, state.base.shape[axis] - 1); soon(); };
    const toggle = (select, first) => {
      if (select.value !== "") { select.dataset.last = select.value; select.value = ""; } else select.value = select.dataset.last || first;
      choose();
    };
    const second = () => page.volumes.findIndex((_, i) => String(i) !== image.value);
    const turn = () => { state.radiological = !state.radiological; soon(); };
    const enlarge = v => { state.large = state.large === v.k ? null : v.k; soon(); };
    const home = () => { state.cross = state.base.shape.map(n => Math.floor(n / 2)); level.value = 128; width.value = 255; split.value = 50; soon(); };
    for (const v of views) {
      const c = v.canvas;
      let dragged = "";
      c.onpointerdown = event => {
        if (!state.base) return;
        c.focus({ preventScroll: true });
        c.setPointerCapture(event.pointerId);
        const box = c.getBoundingClientRect(), gap = Math.abs(event.clientX - box.left - split.value / 100 * box.width);
        dragged = event.button === 2 ? "window" : event.button ? "" : state.with && gap < 9 ? "split" : "cross";
        c.onpointermove(event);
      };
      c.onpointerup = c.onpointercancel = () => { dragged = ""; };
      c.onpointermove = event => {
        if (!state.base) return;
        const box = c.getBoundingClientRect(), found = voxel(v, event);
        if (dragged === "cross") state.cross = found;
        if (dragged === "split") split.value = 100 * (event.clientX - box.left) / box.width;
        if (dragged === "window") { width.value = +width.value + event.movementX; level.value = +level.value - event.movementY; }
        if (dragged) soon();
        told(cursor, "cursor", times(state.base.affine, found));
      };
      c.onpointerleave = () => told(cursor, "cursor", null);
      c.ondblclick = () => enlarge(v);
      c.oncontextmenu = event => event.preventDefault();
      c.addEventListener("wheel", event => {
        if (document.activeElement !== c || event.ctrlKey || !state.base) return;  // a page must scroll past a plane nobody uses
        event.preventDefault();
        slide(v.axis, event.deltaY > 0 ? -1 : 1);
      }, { passive: false });
      c.onkeydown = event => {
        if (event.ctrlKey || event.altKey || event.metaKey || !state.base) return;
        const right = flipped(v) ? -1 : 1;
        const acts = {
          ArrowRight: () => slide(v.across, right), ArrowLeft: () => slide(v.across, -right),
          ArrowUp: () => slide(v.up, 1), ArrowDown: () => slide(v.up, -1),
          PageUp: () => slide(v.axis, 1), PageDown: () => slide(v.axis, -1), Home: home,
          z: () => enlarge(v), s: turn, o: () => page.overlays.length && toggle(over, 0), c: () => second() >= 0 && toggle(other, second()),
          "[": () => { split.value = +split.value - 2; soon(); }, "]": () => { split.value = +split.value + 2; soon(); },
        };
        const act = acts[event.key];
        if (act) { event.preventDefault(); act(); }
      };
    }
    image.onchange = other.onchange = over.onchange = choose;
    level.oninput = width.oninput = opacity.oninput = split.oninput = soon;
    side.onclick = turn;
    reset.onclick = () => { state.only = state.large = null; opacity.value = 50; explain(); home(); };
    other.parentElement.hidden = page.volumes.length < 2;
    over.parentElement.hidden = page.overlays.length < 1;
    split.parentElement.hidden = opacity.parentElement.hidden = true;
    if (page.compare !== null) other.value = page.compare;
    if (page.overlay !== null) over.value = page.overlay;
    new ResizeObserver(soon).observe(planes);
    await choose();
    return host;
  };
})();
for (const host of document.querySelectorAll("div.viewer")) {
  const script = host.querySelector("script");
  if (script) radiataViewer(host, JSON.parse(script.textContent));
}
