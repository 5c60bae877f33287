// One message: its tabs, the frame of a mail, its delivery beside it.

import { ask } from "./tell.js";
import { refresh } from "./times.js";

const place = document.getElementById("message");
const nothing = document.getElementById("nothing");
const keep = "notify-mail-frame";

let shown = null;
let asking = null;
let tab = null; // the tab that was chosen last: it stays while one goes down the list

function frameChoices() {
  const narrow = matchMedia("(max-width: 760px)").matches;
  const start = { width: narrow ? "full" : "600", scheme: window.notifyTheme.now(), pictures: true };
  try {
    return { ...start, ...JSON.parse(sessionStorage.getItem(keep) ?? "{}") };
  } catch {
    return start;
  }
}

function setFrame(choices) {
  const frame = place.querySelector(".mail-frame");
  if (!frame) return;
  for (const name of ["width", "scheme"]) {
    const input = place.querySelector(`input[name="${name}"][value="${choices[name]}"]`);
    if (input) input.checked = true;
  }
  place.querySelector('input[name="pictures"]').checked = choices.pictures;
  frame.dataset.width = choices.width;
  frame.dataset.scheme = choices.scheme;
  const address = `${frame.dataset.src}?scheme=${choices.scheme}${choices.pictures ? "" : "&pictures=off"}`;
  if (frame.getAttribute("src") !== address) frame.setAttribute("src", address);
  place.querySelector("[data-frame-open]").href = address;
}

place.addEventListener("change", (event) => {
  const { name, value, checked } = event.target;
  if (!["width", "scheme", "pictures"].includes(name)) return;
  const choices = { ...frameChoices(), [name]: name === "pictures" ? checked : value };
  try {
    sessionStorage.setItem(keep, JSON.stringify(choices));
  } catch {
    // for this mail only
  }
  setFrame(choices);
});

// --- tabs ---

const tabs = () => [...place.querySelectorAll('[role="tab"]')];

function select(chosen, { focus = false } = {}) {
  for (const each of tabs()) {
    const on = each === chosen;
    each.setAttribute("aria-selected", String(on));
    each.tabIndex = on ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = !on;
  }
  if (focus) chosen.focus();
}

export function selectTab(number) {
  const chosen = tabs()[number - 1];
  if (!chosen) return;
  tab = chosen.id;
  select(chosen);
}

place.addEventListener("click", (event) => {
  const chosen = event.target.closest('[role="tab"]');
  if (chosen) {
    tab = chosen.id;
    select(chosen);
  }
});

place.addEventListener("keydown", (event) => {
  if (event.target.getAttribute("role") !== "tab") return;
  const all = tabs();
  const at = all.indexOf(event.target);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  const chosen = all[(next + all.length) % all.length];
  tab = chosen.id;
  select(chosen, { focus: true });
});

// --- which message ---

export const open = () => shown;

export async function show(id) {
  asking?.abort();
  shown = id;
  document.body.classList.toggle("reading", id !== null);
  if (id === null) {
    place.replaceChildren(nothing);
    return;
  }
  asking = new AbortController();
  const response = await ask(`/message/${encodeURIComponent(id)}`, { signal: asking.signal });
  const html = await response?.text().catch(() => undefined); // aborted in the middle
  if (shown !== id) return; // another one has been chosen meanwhile
  if (html === undefined) {
    place.innerHTML = '<div class="nothing"><p>This message is not here any more.</p><p><a href="#/">Back to the list</a></p></div>';
    return;
  }
  place.innerHTML = html;
  place.scrollTop = 0;
  refresh(place);
  setFrame(frameChoices());
  const same = tab && document.getElementById(tab);
  if (same) select(same);
}

let soon = null;
export function refreshStory() {
  soon ??= setTimeout(async () => {
    soon = null;
    const id = shown;
    if (id === null) return;
    const response = await ask(`/message/${encodeURIComponent(id)}/story`);
    const html = await response?.text();
    const story = document.getElementById("story");
    if (html === undefined || shown !== id || !story) return;
    const focused = story.contains(document.activeElement) ? document.activeElement.dataset.copy : null;
    story.innerHTML = html;
    refresh(story);
    if (focused) story.querySelector(`[data-copy="${CSS.escape(focused)}"]`)?.focus();
  }, 50);
}

export const messageId = () => place.querySelector("[data-message-id]")?.dataset.messageId ?? null;
