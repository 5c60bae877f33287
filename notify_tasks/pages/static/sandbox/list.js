// The list: what arrives goes to its top, a search asks the server, one row is the chosen one.

import { ask } from "./tell.js";
import { refresh } from "./times.js";

const list = document.getElementById("list");
const search = document.getElementById("search");
const filters = document.getElementById("filters");
const total = document.getElementById("total");
const clear = document.getElementById("clear");
const empty = document.getElementById("empty-list");
const noMatch = document.getElementById("no-match");

const MOST = 400; // rows in the document; older ones are a click away

let chosen = null;
let asking = null;
let again = null;

export const query = () => search.value.trim();
const channel = () => filters.querySelector("input:checked")?.value ?? "";
const rows = () => [...list.querySelectorAll(".row")];
const rowOf = (id) => list.querySelector(`.row[data-id="${CSS.escape(id)}"]`);

function drawn(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  refresh(holder.content);
  mark(holder.content);
  return holder.content;
}

function mark(root = list) {
  for (const row of root.querySelectorAll(".row")) {
    const link = row.firstElementChild;
    if (row.dataset.id === chosen) {
      link.setAttribute("aria-current", "true");
      row.classList.remove("unread");
    } else link.removeAttribute("aria-current");
  }
}

function totals(answer) {
  const focused = filters.contains(document.activeElement) ? document.activeElement.value : null;
  const kept = channel();
  filters.innerHTML = answer.filters;
  const same = filters.querySelector(`input[value="${CSS.escape(kept)}"]`);
  if (same) same.checked = true;
  if (focused !== null) filters.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
  total.innerHTML = answer.total_text;
  clear.disabled = answer.total === 0;
  empty.hidden = answer.total > 0;
  noMatch.hidden = answer.total === 0 || list.querySelector(".row") !== null;
  document.title = answer.total ? `(${answer.total}) Sandbox · notify-tasks` : "Sandbox · notify-tasks";
}

function address(extra = {}) {
  return "/list?" + new URLSearchParams({ q: query(), channel: channel(), ...extra });
}

// Reads the list anew, as the search and the filter say.
export async function reload() {
  asking?.abort();
  asking = new AbortController();
  const mine = asking;
  const response = await ask(address(), { signal: mine.signal });
  const answer = await response?.json().catch(() => null); // aborted in the middle
  if (!answer || mine !== asking) return;
  list.replaceChildren(drawn(answer.rows));
  totals(answer);
}

// Soon, and once for a burst.
function reloadSoon(wait = 250) {
  again ??= setTimeout(() => {
    again = null;
    reload();
  }, wait);
}

export function arrived({ rows: news, whole, totals: now }) {
  if (query() || !whole) return reloadSoon();
  const wanted = news.filter((row) => !rowOf(row.id) && (!channel() || row.channel === channel()));
  const top = list.scrollTop < 40;
  const before = list.scrollHeight;
  for (const row of wanted.reverse()) {
    insert(drawn(row.html).querySelector(".row"));
  }
  if (!top) list.scrollTop += list.scrollHeight - before; // what one reads stays where it is
  totals(now);
  if (rows().length > MOST) reloadSoon();
}

// By the time it came: an in-app message is found a moment after it was stored.
function insert(row) {
  const at = (each) => Date.parse(each.querySelector("time").dateTime);
  const below = rows().find((each) => at(each) <= at(row)) ?? list.querySelector(".older");
  row.classList.add("new");
  list.insertBefore(row, below ?? null);
}

export function changed(news) {
  for (const row of news) {
    const old = rowOf(row.id);
    if (!old) continue;
    const content = drawn(row.html);
    const fresh = content.querySelector(".row");
    fresh.dataset.n = old.dataset.n;
    const focused = old.contains(document.activeElement);
    old.replaceWith(content);
    if (focused) fresh.firstElementChild.focus();
  }
}

export function choose(id) {
  chosen = id;
  mark();
  const row = id && rowOf(id);
  row?.scrollIntoView({ block: "nearest" });
  return row;
}

// The id of the message so many rows from the chosen one.
export function beside(step) {
  const all = rows();
  if (!all.length) return null;
  const at = all.findIndex((row) => row.dataset.id === chosen);
  const next = at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step;
  return all[next]?.dataset.id ?? null;
}

export function focusRow(id) {
  (rowOf(id)?.firstElementChild ?? list).focus();
}

export function startSearch() {
  search.focus();
  search.select();
}

export function endSearch() {
  search.value = "";
  for (const input of filters.querySelectorAll("input")) input.checked = input.value === "";
  reload();
}

let typing;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(reload, 120);
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.stopPropagation();
    if (search.value) endSearch();
    search.blur();
  } else if (event.key === "Enter" || event.key === "ArrowDown") {
    const first = list.querySelector(".row a");
    if (first) {
      event.preventDefault();
      event.stopPropagation();
      location.hash = first.hash;
      first.focus();
    }
  }
});
filters.addEventListener("change", reload);
document.getElementById("search-clear").addEventListener("click", endSearch);

list.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-older]");
  if (!button) return;
  const response = await ask(address({ before: button.dataset.older }));
  if (!response) return;
  button.closest("li").replaceWith(drawn((await response.json()).rows));
});

clear.addEventListener("click", () => ask("/messages", { method: "DELETE" }));
