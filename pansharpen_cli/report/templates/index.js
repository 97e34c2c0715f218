"use strict";
const table = document.querySelector("table.scenes"), body = table.tBodies[0];
table.querySelectorAll("thead button").forEach((button, column) => button.addEventListener("click", () => {
  const head = button.closest("th"), up = head.getAttribute("aria-sort") !== "ascending";
  const key = row => row.cells[head.cellIndex].dataset.value;
  const number = row => key(row) === "" ? (up ? Infinity : -Infinity) : +key(row);
  const text = head.dataset.kind === "text";
  const order = text ? (a, b) => key(a).localeCompare(key(b), undefined, { numeric: true }) : (a, b) => number(a) - number(b) || 0;
  [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)).forEach(row => body.append(row));
  table.querySelectorAll("th").forEach(each => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}));
document.getElementById("wanted").addEventListener("input", event => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of body.rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
});
