// The preview's behaviour. The server renders everything; this asks it again when a file or the payload changes, and
// takes over the parts that differ, so that frames, scrolling and what is typed stay as they are.

const type = document.body.dataset.type;
const find = (selector, inside = document) => inside.querySelector(selector);
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const board = find("#board");
const editor = find("#payload");

const kept = (key, fallback) => {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
};
const keep = (key, value) => {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // storage is switched off: kept for this page only
  }
};

// --- what is said in passing ---------------------------------------------------------------------------

let leaving;
function say(words) {
  const toast = find("#toast");
  toast.textContent = words;
  toast.classList.add("shown");
  clearTimeout(leaving);
  leaving = setTimeout(() => toast.classList.remove("shown"), 2400);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say(`Copied ${button.dataset.copy}`);
  } catch {
    say(button.dataset.copy); // the browser does not let a page copy: it can be copied by hand
  }
});

find("#theme").addEventListener("click", () => window.notifyTheme.toggle());

// --- frames: as high as their mail, and scaled down where a column is too narrow ------------------------

const look = { shows: "html", width: "both", scheme: "light", images: "on", ...kept("preview-look", {}) };

const source = (frame) => `/mail/${frame.dataset.mail}?scheme=${look.scheme}&images=${look.images}`;

function fit(frame) {
  const screen = frame.parentElement;
  const figure = screen.parentElement;
  const room = figure.parentElement.clientWidth;
  if (!room || !screen.clientWidth) return;
  const page = frame.contentDocument?.documentElement;
  if (page && frame.contentDocument.body?.childElementCount) {
    // The screen around it keeps its height meanwhile, so that nothing on the page moves.
    frame.style.height = "0";
    frame.dataset.high = String(page.scrollHeight);
    frame.style.height = `${frame.dataset.high}px`;
  }
  const width = Number(figure.dataset.width);
  const scale = Math.min(1, room / width);
  frame.style.transform = scale < 1 ? `scale(${scale})` : "";
  screen.style.width = `${Math.floor(width * scale)}px`;
  screen.style.height = `${Math.ceil(Number(frame.dataset.high ?? 480) * scale)}px`;
  find(".scale", figure).textContent = scale < 1 ? `at ${Math.round(scale * 100)} %` : "";
}

const frames = (inside = board) => (inside ? all("iframe[data-mail]", inside) : []);
const fitAll = () => frames().forEach(fit);

// Load does not bubble, so it is caught on its way down.
board?.addEventListener("load", (event) => event.target.matches?.("iframe[data-mail]") && fit(event.target), true);
if (board) new ResizeObserver(fitAll).observe(board);

// Frames that the look hides stay empty: a mail that nobody sees need not be drawn.
function dress(inside) {
  for (const frame of frames(inside)) {
    const width = frame.closest(".frame").dataset.width;
    const seen = look.shows === "html" && (look.width === "both" || look.width === width);
    if (seen && frame.getAttribute("src") !== source(frame)) frame.setAttribute("src", source(frame));
  }
}

function applyLook() {
  for (const [name, value] of Object.entries(look)) {
    document.documentElement.dataset[name] = value;
    const radio = find(`input[type="radio"][name="${name}"][value="${value}"]`);
    if (radio) radio.checked = true;
  }
  keep("preview-look", look);
  if (board) dress(board);
  fitAll();
}

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.type === "radio" && input.name in look) {
    look[input.name] = input.value;
    applyLook();
  }
});

// --- asking again --------------------------------------------------------------------------------------

const usable = editor?.dataset.usable === "yes";
const state = {
  hidden: kept("preview-hidden", []),
  added: kept("preview-added", []),
  payload: null, // as it is in the editor; null is the example
  last: null, // the last one that could be used
  ...kept("preview-person", {}), // timezone, bare, attachment
};
const asked = () => state.hidden.length || state.added.length || state.timezone || state.bare || state.attachment;
let version = document.body.dataset.version;
let example = editor?.defaultValue ?? "";
let asking = null;
let again = false;

async function refresh() {
  if (!type) {
    location.reload(); // no type is shown: there may be one now
    return;
  }
  if (asking) {
    again = true;
    return;
  }
  asking = ask();
  try {
    await asking;
  } finally {
    asking = null;
    if (again) {
      again = false;
      refresh();
    }
  }
}

async function ask() {
  const sent = state.payload;
  let answer;
  try {
    answer = await fetch(location.pathname, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...state }),
    });
  } catch {
    live("gone");
    return;
  }
  if (answer.status === 404) {
    location.reload(); // the type's folder went away: the page says so
    return;
  }
  if (!answer.ok) {
    say(await answer.text());
    return;
  }
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (find("#payload", next).dataset.usable === "yes") {
    state.last = sent;
    keep(`preview-payload-${type}`, sent);
  }
  version = next.body.dataset.version;
  follow(find("#payload", next).defaultValue);
  take(next);
}

// The editor follows example.json while nothing else was written into it.
function follow(latest) {
  if (latest === example) return;
  if (state.payload === null) editor.value = latest;
  example = latest;
}

function take(next) {
  const fresh = find("#board", next);
  if (fresh.dataset.shape !== board.dataset.shape) {
    const heights = remembered(board);
    dress(fresh);
    board.replaceChildren(...fresh.childNodes);
    board.dataset.shape = fresh.dataset.shape;
    recall(board, heights);
    applyLook();
  }
  for (const part of all("[data-digest]", next)) {
    const present = document.getElementById(part.id);
    if (present && present.dataset.digest !== part.dataset.digest) replace(present, part);
  }
  for (const cell of all(".cell", next)) {
    document.getElementById(cell.id)?.toggleAttribute("data-stale", cell.hasAttribute("data-stale"));
  }
  fitAll();
}

function replace(present, part) {
  const focus = present.contains(document.activeElement) ? handle(document.activeElement) : null;
  const heights = remembered(present);
  dress(part);
  present.replaceChildren(...part.childNodes);
  present.dataset.digest = part.dataset.digest;
  recall(present, heights);
  if (focus) find(focus, present)?.focus();
  if (present.classList.contains("view")) {
    present.classList.remove("changed");
    void present.offsetWidth; // the browser must see it gone to begin again
    present.classList.add("changed");
  }
}

const handle = (element) =>
  ["value", "data-is", "data-copy", "href"]
    .filter((name) => element.hasAttribute(name))
    .map((name) => `[${name}="${CSS.escape(element.getAttribute(name))}"]`)[0] ?? null;

// New frames start as high as the old ones: the page below them stays where it is while they load.
const place = (frame) => frame.closest(".cell").id + frame.closest(".frame").dataset.width;
const remembered = (inside) => new Map(frames(inside).map((frame) => [place(frame), frame.dataset.high]));
function recall(inside, heights) {
  for (const frame of frames(inside)) {
    const high = heights.get(place(frame));
    if (high) {
      frame.dataset.high = high;
      frame.style.height = `${high}px`;
    }
    fit(frame);
  }
}

// --- the locales ---------------------------------------------------------------------------------------

document.addEventListener("change", (event) => {
  const input = event.target;
  if (input.name !== "locale" || input.type !== "checkbox") return;
  const list = "added" in input.dataset ? "added" : "hidden";
  const put = "added" in input.dataset ? input.checked : !input.checked;
  state[list] = state[list].filter((it) => it !== input.value);
  if (put) state[list].push(input.value);
  keep(`preview-${list}`, state[list]);
  refresh();
});

find("#add-locale")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const input = find("#locale");
  const locale = input.value.trim().replaceAll("_", "-");
  if (!/^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$/.test(locale)) {
    say("Write a locale as phones do: de, de-AT, zh-Hans");
    return;
  }
  state.hidden = state.hidden.filter((it) => it !== locale);
  if (!state.added.includes(locale)) state.added.push(locale);
  keep("preview-added", state.added);
  keep("preview-hidden", state.hidden);
  input.value = "";
  refresh();
});

// --- the payload ---------------------------------------------------------------------------------------

const dock = find("#dock-toggle");

function openDock(open) {
  dock.setAttribute("aria-expanded", String(open));
  find("#dock-body").hidden = !open;
  keep("preview-dock", open);
}

let typing;
function written() {
  state.payload = editor.value === example ? null : editor.value;
  clearTimeout(typing);
  typing = setTimeout(refresh, 150);
}

function toLine(number) {
  const lines = editor.value.split("\n");
  const start = lines.slice(0, number - 1).join("\n").length + (number > 1 ? 1 : 0);
  editor.focus();
  editor.setSelectionRange(start, start + (lines[number - 1] ?? "").length);
  editor.scrollTop = (editor.scrollHeight / lines.length) * Math.max(0, number - 3);
}

if (editor) {
  dock.addEventListener("click", () => openDock(dock.getAttribute("aria-expanded") !== "true"));
  editor.addEventListener("input", written);
  document.addEventListener("click", (event) => {
    const fill = event.target.closest("[data-fill]");
    if (fill) {
      editor.value = fill.dataset.fill;
      written();
    }
    const line = event.target.closest("[data-line]");
    if (line) toLine(Number(line.dataset.line));
  });
  openDock(kept("preview-dock", innerHeight >= 1000));
  const before = kept(`preview-payload-${type}`, null);
  editor.value = before ?? example; // a browser may have put something of its own there
  if (before !== null) state.payload = state.last = before;
  if (!usable && before === null) state.last = null;
}

// --- the recipient -------------------------------------------------------------------------------------

const person = { timezone: find("#timezone"), bare: find("[name=bare]"), attachment: find("[name=attachment]") };

function showPerson() {
  if (state.timezone) person.timezone.value = state.timezone;
  person.bare.checked = state.bare === true;
  person.attachment.checked = state.attachment === true;
  person.timezone.disabled = person.bare.checked;
}

if (editor) {
  showPerson();
  for (const input of Object.values(person)) {
    input.addEventListener("change", () => {
      state.timezone = person.timezone.value.trim() || null;
      state.bare = person.bare.checked;
      state.attachment = person.attachment.checked;
      keep("preview-person", { timezone: state.timezone, bare: state.bare, attachment: state.attachment });
      showPerson();
      refresh();
    });
  }
}

// --- keys ----------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !type) return;
  const field = event.target.closest("textarea, input:not([type='radio'], [type='checkbox'])");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  const types = all("#types a");
  const here = types.findIndex((it) => it.getAttribute("aria-current") === "page");
  const actions = {
    j: () => types[here + 1]?.click(),
    k: () => types[here - 1]?.click(),
    d: () => {
      look.scheme = look.scheme === "dark" ? "light" : "dark";
      applyLook();
    },
    t: () => {
      look.shows = look.shows === "text" ? "html" : "text";
      applyLook();
    },
    p: () => {
      openDock(true);
      editor.focus();
    },
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});

// --- live ----------------------------------------------------------------------------------------------

function live(is) {
  const words = { on: "follows your files", gone: "ended: start notify templates preview again" };
  const shown = find("#live");
  shown.dataset.live = is;
  if (shown.textContent !== words[is]) shown.textContent = words[is];
}

const events = new EventSource("/events");
events.addEventListener("hello", (event) => {
  live("on");
  // What changed since the page was made, and what this tab has kept from before.
  if (event.data !== version || (type && (state.payload !== null || asked()))) refresh();
});
events.addEventListener("change", refresh);
events.addEventListener("error", () => live("gone"));
addEventListener("pagehide", () => events.close());

find("#types [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
applyLook();
