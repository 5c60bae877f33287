#!/bin/sh
# The tests of alerts and dashboards ask promtool and a real Prometheus. This finds them, or installs Debian's where it may.
set -eu

if command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1; then
    exit 0
fi

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    started=$(date +%s)
    echo "Installing prometheus for the tests of alerts and dashboards ..."
    # As a package alone: no server of it is started, and none of those that Debian recommends beside it.
    if DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c \
        'apt-get update && apt-get install --yes --no-install-recommends prometheus' >"$log" 2>&1; then
        echo "Installing prometheus ... done ($(($(date +%s) - started)) s)"
        exit 0
    fi
    tail -5 "$log" >&2
    echo "prometheus could not be installed: the lines above say why." >&2
fi
echo "There is no Prometheus on this machine, so the tests that ask it about alerts and dashboards are skipped." >&2
echo "Install it to run them (Debian, Ubuntu: apt install prometheus)." >&2
