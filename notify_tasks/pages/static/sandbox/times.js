// Times: relative ones are kept up to date, absolute ones are written in the zone of who looks.

const long = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "long", hourCycle: "h23" });

export function ago(at, now = Date.now()) {
  const seconds = Math.floor((now - at) / 1000);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

function write(time, now) {
  const at = new Date(time.dateTime);
  const kind = time.dataset.time;
  if (kind === "relative") {
    const text = ago(at.getTime(), now);
    if (time.textContent !== text) time.textContent = text;
  }
  if (time.dataset.zoned) return;
  time.dataset.zoned = "yes";
  time.title = long.format(at);
  if (kind === "absolute") {
    const today = at.toDateString() === new Date(now).toDateString();
    time.textContent = (today ? clock : long).format(at);
  }
}

export function refresh(root = document) {
  const now = Date.now();
  for (const time of root.querySelectorAll("time[data-time]")) write(time, now);
}

export function keepRunning() {
  refresh();
  setInterval(() => {
    if (!document.hidden) refresh();
  }, 1000);
  document.addEventListener("visibilitychange", () => refresh());
}
