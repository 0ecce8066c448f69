// Draws the vessel tree on a canvas and turns it. No library, no network.
(() => {
  const canvas = document.getElementById("tree");
  const source = document.getElementById("tree-data");
  if (!canvas || !source || !canvas.getContext) return;
  const { branches, candidates } = JSON.parse(source.textContent);
  const context = canvas.getContext("2d");
  const all = branches.flatMap((b) => b.points).concat(candidates.map((c) => c.at));
  if (!all.length) { canvas.parentElement.hidden = true; return; }
  const low = [0, 1, 2].map((i) => Math.min(...all.map((p) => p[i])));
  const high = [0, 1, 2].map((i) => Math.max(...all.map((p) => p[i])));
  const middle = [0, 1, 2].map((i) => (low[i] + high[i]) / 2);
  const extent = Math.hypot(...[0, 1, 2].map((i) => high[i] - low[i])) || 1;
  const views = { front: [0, 0], side: [-Math.PI / 2, 0], above: [Math.PI, Math.PI / 2] };
  let [turn, tip] = [-0.5, 0.25];
  let zoom = 1.5;
  let spinning = false;

  // To the right, down and away from the reader, in mm; at rest the patient faces the reader.
  const place = (p) => {
    const [x, y, z] = [0, 1, 2].map((i) => p[i] - middle[i]);
    const [c, s, ct, st] = [Math.cos(turn), Math.sin(turn), Math.cos(tip), Math.sin(tip)];
    const [across, away] = [x * c - y * s, x * s + y * c];
    return [across, -z * ct + away * -st, away * ct - z * st];
  };

  function draw() {
    const dots = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    canvas.width = width * dots;
    canvas.height = height * dots;
    context.setTransform(dots, 0, 0, dots, 0, 0);
    context.fillStyle = "#05070a";
    context.fillRect(0, 0, width, height);
    const scale = (zoom * Math.min(width, height)) / extent;
    const screen = (q) => [width / 2 + q[0] * scale, height / 2 + q[1] * scale];
    const strokes = [];
    for (const { colour, points } of branches) {
      const placed = points.map(place);
      for (let i = 1; i < points.length; i++) {
        strokes.push([(placed[i - 1][2] + placed[i][2]) / 2, placed[i - 1], placed[i], points[i - 1][3] + points[i][3], colour]);
      }
    }
    strokes.sort((a, b) => b[0] - a[0]);
    context.lineCap = "round";
    for (const [depth, a, b, thickness, colour] of strokes) {
      const [x1, y1] = screen(a);
      const [x2, y2] = screen(b);
      // Farther branches are darker.
      context.globalAlpha = Math.max(0.35, Math.min(1, 0.75 - depth / extent));
      context.strokeStyle = colour;
      context.lineWidth = Math.max(1, thickness * scale);
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.strokeStyle = context.fillStyle = "#59d0ff";
    context.font = "600 15px system-ui, sans-serif";
    context.lineWidth = 1.6;
    for (const { rank, at, radius } of candidates) {
      const [x, y] = screen(place(at));
      const r = Math.max(6, (radius + 1) * scale);
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.stroke();
      context.fillText(rank, x + r + 3, y - r / 2);
    }
    // Letters at the ends of the patient's axes.
    context.fillStyle = "#8a93a0";
    context.textAlign = "center";
    for (const [letter, direction] of [["L", [1, 0, 0]], ["R", [-1, 0, 0]], ["A", [0, -1, 0]], ["P", [0, 1, 0]], ["S", [0, 0, 1]], ["I", [0, 0, -1]]]) {
      const [dx, dy, away] = place(direction.map((v, i) => middle[i] + v));
      if (Math.abs(away) > 0.95) continue;
      const reach = Math.min(width, height) / 2 - 16;
      context.fillText(letter, width / 2 + dx * reach, height / 2 + dy * reach + 5);
    }
    context.textAlign = "start";
  }

  let held = null;
  canvas.addEventListener("pointerdown", (e) => { held = [e.clientX, e.clientY]; spinning = false; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!held) return;
    turn -= (e.clientX - held[0]) * 0.008;
    tip = Math.max(-1.6, Math.min(1.6, tip + (e.clientY - held[1]) * 0.008));
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom = Math.max(0.5, Math.min(8, zoom * Math.exp(-e.deltaY * 0.001)));
    draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[e.key];
    if (!step) return;
    e.preventDefault();
    turn += step[0];
    tip += step[1];
    draw();
  });
  const spin = () => {
    if (!spinning) return;
    turn += 0.01;
    draw();
    requestAnimationFrame(spin);
  };
  for (const button of canvas.parentElement.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const view = views[button.dataset.view];
      spinning = !view && !spinning;
      if (view) [turn, tip] = view;
      spinning ? spin() : draw();
    });
  }
  window.addEventListener("resize", draw);
  draw();
})();
