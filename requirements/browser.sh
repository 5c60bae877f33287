#!/bin/sh
# The tests of the pages drive a real browser. This finds one, or installs Debian's chromium where it may.
set -eu

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done
[ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] && exit 0

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    started=$(date +%s)
    echo "Installing chromium for the tests of the pages ..."
    if DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get update && apt-get install --yes --no-install-recommends chromium fonts-liberation' >"$log" 2>&1; then
        echo "Installing chromium ... done ($(($(date +%s) - started)) s)"
        exit 0
    fi
    tail -5 "$log" >&2
    echo "chromium could not be installed: the lines above say why." >&2
fi
echo "There is no chromium on this machine, so the tests of the pages are skipped." >&2
echo "Install it to run them (Debian, Ubuntu: apt install chromium)." >&2
