"""The page itself: two animations side by side, keys for the answer."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Which one is better?</title>
<style>
body { font: 16px system-ui, sans-serif; margin: 1.5rem auto; max-width: 64rem; color: #222; }
.pair { display: flex; gap: 1rem; } canvas { width: 100%; border: 1px solid #bbb; border-radius: 6px; }
.side { flex: 1; text-align: center; } button { font: inherit; padding: .5rem 1rem; margin: .25rem; cursor: pointer; }
#message { min-height: 1.5rem; color: #a00; } kbd { background: #eee; border-radius: 3px; padding: 0 .3rem; }
</style></head><body>
<h1>Which one is better?</h1>
<p id="progress"></p>
<div class="pair">
 <div class="side"><canvas id="one" width="480" height="480"></canvas>
  <button data-answer="first">Left is better <kbd>&larr;</kbd></button></div>
 <div class="side"><canvas id="two" width="480" height="480"></canvas>
  <button data-answer="second">Right is better <kbd>&rarr;</kbd></button></div>
</div>
<p style="text-align:center">
 <button data-answer="tie">Equally good <kbd>=</kbd></button>
 <button data-answer="skip">Cannot say <kbd>s</kbd></button></p>
<p id="message" role="alert"></p>
<script>
const colours = {goal: "#2ca02c", hazards: "#1f77b4", vases: "#17becf", gremlins: "#9467bd", buttons: "#ff7f0e",
  pillars: "#555", push_box: "#bcbd22", circle: "#e377c2", red_zone: "#d62728", green_zone: "#2ca02c",
  blue_zone: "#1f3fff", yellow_zone: "#dfbf00"};
let current = null, shown = 0, busy = false;
function draw(canvas, data, step) {
  const g = canvas.getContext("2d"), half = 2.2, scale = canvas.width / (2 * half);
  g.clearRect(0, 0, canvas.width, canvas.height);
  if (!data.path) {
    g.fillText("no geometry: actions only", 20, 20);
    data.actions.slice(0, step + 1).forEach((a, i) => a.forEach((v, k) => {
      g.fillStyle = k ? "#d62728" : "#1f77b4";
      g.fillRect(20 + i * (440 / data.actions.length), 240 - v * 200, 4, 4); }));
    return;
  }
  const path = data.path, middle = path[Math.floor(path.length / 2)];
  const at = (x, y) => [canvas.width / 2 + (x - middle[0]) * scale, canvas.height / 2 - (y - middle[1]) * scale];
  for (const [kind, x, y, radius] of data.objects[step]) {
    const [px, py] = at(x, y);
    g.beginPath(); g.arc(px, py, radius * scale, 0, 7); g.globalAlpha = .45;
    g.fillStyle = colours[kind] || "#888"; g.fill(); g.globalAlpha = 1;
  }
  g.strokeStyle = "#333"; g.lineWidth = 2; g.beginPath();
  path.slice(0, step + 1).forEach((p, i) => { const [x, y] = at(p[0], p[1]); i ? g.lineTo(x, y) : g.moveTo(x, y); });
  g.stroke();
  const [x, y, yaw] = path[step], [px, py] = at(x, y);
  g.beginPath(); g.arc(px, py, 7, 0, 7); g.fillStyle = "#e63946"; g.fill();
  g.beginPath(); g.moveTo(px, py); g.lineTo(px + 18 * Math.cos(yaw), py - 18 * Math.sin(yaw)); g.stroke();
}
let tick = 0;
setInterval(() => {
  if (!current || current.done) return;
  const n = current.one.actions.length;
  draw(document.getElementById("one"), current.one, Math.min(tick, n - 1));
  draw(document.getElementById("two"), current.two, Math.min(tick, n - 1));
  tick = tick > n + 12 ? 0 : tick + 1;
}, 50);
async function next() {
  const reply = await fetch("question");
  current = await reply.json(); tick = 0; shown = performance.now();
  document.getElementById("progress").textContent = current.done
    ? "All " + current.total + " comparisons are answered. Thank you; this page can be closed."
    : "Comparison " + (current.answered + 1) + " of " + current.total + ". Every answer is stored at once.";
}
async function answer(word) {
  if (!current || current.done || busy) return;
  busy = true;
  try {
    const body = JSON.stringify({number: current.number, answer: word, seconds: (performance.now() - shown) / 1000});
    const reply = await fetch("answer",
      {method: "POST", headers: {"Content-Type": "application/json", "X-Label-Token": current.token}, body});
    document.getElementById("message").textContent = reply.ok ? "" : (await reply.json()).error;
    if (reply.ok) await next();
  } catch (error) {
    document.getElementById("message").textContent = "The answer was not stored: " + error;
  } finally { busy = false; }
}
document.querySelectorAll("button").forEach(b => b.onclick = () => answer(b.dataset.answer));
document.onkeydown = e => ({ArrowLeft: "first", ArrowRight: "second", "=": "tie", s: "skip"})[e.key]
  && answer({ArrowLeft: "first", ArrowRight: "second", "=": "tie", s: "skip"}[e.key]);
next();
</script></body></html>
"""
