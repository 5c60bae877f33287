// Runs before the first paint, so that a page in a chosen colour scheme never flashes in the other one.
// It is a plain script for that reason: modules wait for the document.
(() => {
  const key = "notify-theme";
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // storage is switched off: the system's scheme it is
    }
  };
  const chosen = kept();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  window.notifyTheme = {
    // "light" or "dark", whoever chose it
    now() {
      if (root.dataset.theme) return root.dataset.theme;
      return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    },
    toggle() {
      const next = this.now() === "dark" ? "light" : "dark";
      root.dataset.theme = next;
      try {
        localStorage.setItem(key, next);
      } catch {
        // kept for this page only
      }
      return next;
    },
  };
})();
