// The sandbox page: where one is (#/message/<id>), the keyboard, and what the server tells.

import * as behaviour from "./behaviour.js";
import * as list from "./list.js";
import * as message from "./message.js";
import { keepRunning } from "./times.js";

const gone = document.getElementById("gone");
const panel = document.getElementById("behaviour");
const help = document.getElementById("help");

// --- where one is ---

function here() {
  const found = /^#\/message\/(.+)$/.exec(location.hash);
  return found ? decodeURIComponent(found[1]) : null;
}

async function go() {
  const id = here();
  list.choose(id);
  await message.show(id);
}

window.addEventListener("hashchange", go);

function step(by) {
  const id = list.beside(by);
  if (id === null) return;
  location.hash = `#/message/${encodeURIComponent(id)}`;
  list.focusRow(id);
}

function back() {
  const id = here();
  if (id === null) return;
  location.hash = "#/";
  list.focusRow(id);
}

// --- keyboard ---

const keys = {
  j: () => step(1),
  ArrowDown: () => step(1),
  k: () => step(-1),
  ArrowUp: () => step(-1),
  "/": () => list.startSearch(),
  "?": () => help.togglePopover(),
  m: () => panel.togglePopover(),
  t: () => window.notifyTheme.toggle(),
  Escape: () => back(),
  ...Object.fromEntries([1, 2, 3, 4, 5].map((n) => [String(n), () => message.selectTab(n)])),
};

function isBusy(event) {
  const at = event.target;
  if (at.matches?.("input:not([type=checkbox]), select, textarea")) return true;
  if (event.key.startsWith("Arrow") && at.closest?.(".panel, [role=tablist], .pop")) return true; // they scroll there
  return event.key === "Escape" && document.querySelector(":popover-open") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isBusy(event)) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

document.getElementById("theme").addEventListener("click", () => window.notifyTheme.toggle());

// --- what the server tells ---

const { boot, last } = document.body.dataset;
const events = new EventSource(`/events?boot=${boot}&after=${last}`);
let begun = false;

const on = (name, act) => events.addEventListener(name, (event) => act(JSON.parse(event.data)));

on("hello", ({ boot: now }) => {
  gone.hidden = true;
  if (now !== boot) location.reload(); // another far end has taken the place of the one that was
  else if (begun) list.reload();
  begun = true;
  document.body.dataset.live = "yes";
});
on("arrived", (news) => list.arrived(news));
on("rows", (rows) => {
  list.changed(rows);
  if (rows.some((row) => row.id === message.open())) message.refreshStory();
});
on("timelines", (ids) => {
  if (ids.includes(message.messageId())) message.refreshStory();
});
on("status", (status) => {
  behaviour.draw(status);
});
on("refresh", () => {
  list.reload();
  message.refreshStory();
});
on("cleared", () => {
  list.reload();
  if (here() !== null) location.hash = "#/";
});
events.addEventListener("error", () => {
  gone.hidden = false;
  delete document.body.dataset.live;
});

keepRunning();
go();
