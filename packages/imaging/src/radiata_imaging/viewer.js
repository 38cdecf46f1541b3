"use strict";
// Three linked planes of 8-bit volumes in RAS order (x fastest). Click or drag: crosshair. Wheel: slice. Sliders or right drag: window.
for (const host of document.querySelectorAll("div.viewer")) {
  const page = JSON.parse(host.querySelector("script").textContent);
  for (const v of page.volumes) v.values = Uint8Array.from(atob(v.data), c => c.charCodeAt(0));
  const make = (tag, parent, set = {}) => Object.assign(parent.appendChild(document.createElement(tag)), set);
  const bar = make("div", host, { className: "bar" });
  const chooser = make("select", bar, { title: "volume" });
  page.volumes.forEach((v, i) => make("option", chooser, { value: i, textContent: v.name }));
  const slider = (label, value) => {
    const box = make("label", bar, { textContent: label + " " });
    return make("input", box, { type: "range", min: 0, max: 255, value });
  };
  const level = slider("level", 128), width = slider("window", 255);
  width.min = 1;
  const side = make("button", bar, { textContent: "neurological" });
  const where = make("span", bar);
  make("span", bar, { className: "note", textContent: page.stamp });
  const planes = make("div", host, { className: "planes" });
  let current = page.volumes[0], radiological = false;
  let cross = current.shape.map(n => Math.floor(n / 2));
  const letters = ["LR", "PA", "IS"];
  // axis the plane cuts across, axis that runs to the right, axis that runs up
  const views = [[2, 0, 1], [1, 0, 2], [0, 1, 2]].map(([axis, across, up]) => ({ axis, across, up, canvas: make("canvas", planes) }));
  const flipped = view => radiological && view.across === 0;
  const world = () => current.affine.slice(0, 3).map(r => r[0] * cross[0] + r[1] * cross[1] + r[2] * cross[2] + r[3]);

  function draw() {
    const extent = Math.max(...current.shape.map((n, i) => n * current.spacing[i]));
    const scale = 330 / extent;
    const stride = [1, current.shape[0], current.shape[0] * current.shape[1]];
    const low = +level.value - width.value / 2, gain = 255 / width.value;
    for (const view of views) {
      const { axis, across, up, canvas } = view;
      const w = current.shape[across], h = current.shape[up];
      const image = new ImageData(w, h);
      for (let j = 0; j < h; j++) for (let i = 0; i < w; i++) {
        const at = (flipped(view) ? w - 1 - i : i) * stride[across] + (h - 1 - j) * stride[up] + cross[axis] * stride[axis];
        const grey = (current.values[at] - low) * gain, k = 4 * (j * w + i);
        image.data[k] = image.data[k + 1] = image.data[k + 2] = grey;
        image.data[k + 3] = 255;
      }
      const small = new OffscreenCanvas(w, h);
      small.getContext("2d").putImageData(image, 0, 0);
      canvas.width = Math.round(w * current.spacing[across] * scale);
      canvas.height = Math.round(h * current.spacing[up] * scale);
      const g = canvas.getContext("2d");
      g.imageSmoothingEnabled = true;
      g.drawImage(small, 0, 0, canvas.width, canvas.height);
      const cx = (flipped(view) ? w - .5 - cross[across] : cross[across] + .5) / w * canvas.width;
      const cy = (h - .5 - cross[up]) / h * canvas.height;
      g.strokeStyle = "rgba(90,200,255,.55)";
      g.beginPath(); g.moveTo(cx, 0); g.lineTo(cx, canvas.height); g.moveTo(0, cy); g.lineTo(canvas.width, cy); g.stroke();
      g.fillStyle = "#ffd24d"; g.font = "bold 13px sans-serif"; g.textBaseline = "middle";
      const pair = flipped(view) ? letters[across][1] + letters[across][0] : letters[across];
      g.textAlign = "left"; g.fillText(pair[0], 4, canvas.height / 2);
      g.textAlign = "right"; g.fillText(pair[1], canvas.width - 4, canvas.height / 2);
      g.textAlign = "center"; g.fillText(letters[up][1], canvas.width / 2, 10); g.fillText(letters[up][0], canvas.width / 2, canvas.height - 10);
    }
    const mm = world().map((x, i) => "xyz"[i] + " " + (x >= 0 ? "+" : "") + x.toFixed(0)).join("  ");
    const at = cross[0] + current.shape[0] * (cross[1] + current.shape[1] * cross[2]);
    const value = current.low + current.values[at] / 255 * (current.high - current.low);
    where.textContent = `${mm} mm   value ${value.toPrecision(3)}` + (current.averaged ? "   (averaged for this page)" : "");
    side.textContent = radiological ? "radiological: left is right" : "neurological: left is left";
  }
  const clamp = (x, n) => Math.min(n - 1, Math.max(0, x));
  function move(view, event) {
    const box = view.canvas.getBoundingClientRect();
    const u = Math.floor((event.clientX - box.left) / box.width * current.shape[view.across]);
    const v = Math.floor((event.clientY - box.top) / box.height * current.shape[view.up]);
    cross[view.across] = clamp(flipped(view) ? current.shape[view.across] - 1 - u : u, current.shape[view.across]);
    cross[view.up] = clamp(current.shape[view.up] - 1 - v, current.shape[view.up]);
    draw();
  }
  for (const view of views) {
    const c = view.canvas;
    c.onpointerdown = e => { c.setPointerCapture(e.pointerId); if (e.button === 0) move(view, e); };
    c.onpointermove = e => {
      if (e.buttons === 1) move(view, e);
      if (e.buttons === 2) { width.value = +width.value + e.movementX; level.value = +level.value - e.movementY; draw(); }
    };
    c.oncontextmenu = e => e.preventDefault();
    c.addEventListener("wheel", e => {
      e.preventDefault();
      cross[view.axis] = clamp(cross[view.axis] + (e.deltaY > 0 ? -1 : 1), current.shape[view.axis]);
      draw();
    }, { passive: false });
  }
  chooser.onchange = () => {
    const before = current;
    current = page.volumes[chooser.value];
    cross = cross.map((x, i) => clamp(Math.round((x + .5) / before.shape[i] * current.shape[i] - .5), current.shape[i]));
    draw();
  };
  level.oninput = width.oninput = draw;
  side.onclick = () => { radiological = !radiological; draw(); };
  draw();
}
