// How the providers behave: what is chosen here, the far end plays.

import { ask, say } from "./tell.js";

const targets = document.getElementById("targets");
const trouble = document.getElementById("trouble");
const ends = document.getElementById("ends");
const once = document.getElementById("once");

// Draws anew, and leaves the keyboard where it was.
function redraw(place, html) {
  if (place.innerHTML === html) return;
  const at = document.activeElement;
  const inside = place.contains(at);
  const row = at?.closest?.("[data-target]")?.dataset.target;
  place.innerHTML = html;
  if (!inside) return;
  const again = row
    ? place.querySelector(`[data-target="${row}"] ${at.type === "radio" ? "input:checked" : "select"}`)
    : place.querySelector("button:last-of-type");
  again?.focus({ preventScroll: true });
}

export function draw(status) {
  redraw(targets, status.behaviour);
  redraw(trouble, status.trouble);
  redraw(ends, status.ends);
  const bad = targets.querySelector("[data-bad]") !== null;
  document.querySelector(".pop-head [data-all-well]").disabled = !bad;
}

async function play(target, mode) {
  const response = await ask(`/modes/${target}`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ mode, once: once.checked }),
  });
  if (response) draw(await response.json());
}

targets.addEventListener("change", (event) => {
  const target = event.target.closest("[data-target]")?.dataset.target;
  if (target && event.target.value) play(target, event.target.value);
});

document.addEventListener("click", async (event) => {
  if (!event.target.closest("[data-all-well]")) return;
  const response = await ask("/modes", { method: "DELETE" });
  if (response) {
    draw(await response.json());
    say("All well again");
  }
});
