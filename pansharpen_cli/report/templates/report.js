"use strict";
document.querySelectorAll(".compare").forEach(setUp);
Promise.all([...document.images].filter(i => i.getAttribute("src")).map(i => i.decode().catch(() => null)))
  .then(() => { document.documentElement.dataset.ready = "yes"; });

function setUp(tool) {
  const group = tool.closest(".group"), part = name => tool.querySelector("." + name);
  const view = part("view"), left = part("left"), right = part("right"), range = part("range"), blink = part("blink");
  const stage = part("stage"), under = part("under"), over = part("over");
  const names = { left: part("name-left"), right: part("name-right") };
  const places = [...group.querySelectorAll("[data-view]")];
  let timer = null, shown = "left";

  places.forEach((place, k) => view.add(new Option(place.dataset.view, k)));
  const labels = [...places[0].querySelectorAll("[data-label]")].map(p => p.dataset.label);
  for (const select of [left, right]) labels.forEach((label, k) => select.add(new Option(label, k)));
  left.value = Math.min(1, labels.length - 1); right.value = Math.min(2, labels.length - 1);
  if (labels.includes("Reference")) { left.value = 0; right.value = 1; }

  function picture(select) {
    const panel = [...places[view.value].querySelectorAll("[data-label]")][select.value];
    const wanted = document.getElementById("colour-false")?.checked ? "false" : "true";
    return panel.querySelector("img." + wanted) || panel.querySelector("img");
  }
  function refresh() {
    const a = picture(left), b = picture(right);
    over.src = a.src; under.src = b.src;
    over.alt = a.alt; under.alt = b.alt;
    const width = +a.getAttribute("width"), height = +a.getAttribute("height");
    const fit = Math.min(960 / width, 800 / height), times = fit >= 2 ? Math.floor(fit) : fit;
    stage.style.aspectRatio = width + " / " + height;
    stage.style.maxWidth = range.style.maxWidth = Math.round(width * times) + "px";
    stage.classList.toggle("enlarged", times >= 2);
    names.left.textContent = labels[left.value]; names.right.textContent = labels[right.value];
    move();
  }
  function move() {
    stage.style.setProperty("--at", timer ? (shown === "left" ? "100%" : "0%") : range.value + "%");
    stage.classList.toggle("blinking", timer !== null);
    names.left.hidden = timer !== null && shown !== "left";
    names.right.hidden = timer !== null && shown === "left";
  }
  function stop() {
    clearInterval(timer); timer = null;
    blink.setAttribute("aria-pressed", "false"); move();
  }
  function start() {
    timer = setInterval(() => { shown = shown === "left" ? "right" : "left"; move(); }, 700);
    blink.setAttribute("aria-pressed", "true"); move();
  }
  function drag(event) {
    if (event.buttons !== 1 || timer) return;
    const box = stage.getBoundingClientRect();
    range.value = 100 * (event.clientX - box.left) / box.width; move(); event.preventDefault();
  }
  blink.addEventListener("click", () => timer ? stop() : start());
  document.addEventListener("keydown", event => { if (event.key === "Escape" && timer) stop(); });
  range.addEventListener("input", () => { if (timer) stop(); move(); });
  stage.addEventListener("pointerdown", drag); stage.addEventListener("pointermove", drag);
  for (const select of [view, left, right]) select.addEventListener("change", refresh);
  document.querySelectorAll("input[name=colours]").forEach(i => i.addEventListener("change", refresh));
  tool.hidden = false; refresh();
}
