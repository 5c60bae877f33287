// What is said in passing, asking the server, and copying.

const toast = document.getElementById("toast");
let fading;

export function say(words) {
  toast.textContent = words;
  toast.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => toast.classList.remove("shown"), 2500);
}

// Asks the server; null and a word to the reader where it does not answer well.
export async function ask(path, options) {
  try {
    const response = await fetch(path, options);
    if (response.ok) return response;
    const text = await response.text();
    if (response.status !== 404) say(text.slice(0, 200));
  } catch (error) {
    if (error.name !== "AbortError") say("The far end does not answer.");
  }
  return null;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without permission, or over plain HTTP from another machine: the old way
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button.dataset.copy);
});
