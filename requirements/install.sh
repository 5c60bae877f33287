#!/bin/sh
# Builds or updates a virtual environment from the pinned requirements:
#
#   sh requirements/install.sh VENV demo    what `make demo` needs: few packages, so that a first start is quick
#   sh requirements/install.sh VENV dev     the same and everything for tests and checks
#
# uv does the work where it is installed; otherwise pip, which every Python has. PYTHON names the interpreter.
set -eu

venv=$1
what=$2
python=${PYTHON:-python3}
requirements=requirements/$what.txt

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail \
    "There is no '$python' on this machine, and this project needs Python 3.11 or later." \
    "Install it (Debian, Ubuntu: apt install python3 python3-venv) or name another: make PYTHON=/path/to/python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail \
    "'$python' is $("$python" --version 2>&1), and this project needs Python 3.11 or later." \
    "Name a newer one, for example: make PYTHON=python3.12 ..."

# The dev set holds the demo set at the same versions: an environment that has it needs nothing more.
holds() {
    [ -f "$venv/.$1" ] && cmp -s "requirements/$1.txt" "$venv/.$1"
}
if [ -x "$venv/bin/notify" ]; then
    for larger in "$what" dev; do
        if holds "$larger"; then
            cp "requirements/$what.txt" "$venv/.$what"
            exit 0
        fi
    done
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Runs a command with its output in the log, and shows a line with the seconds gone by; shows the log if it fails.
run() {
    title=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    job=$!
    trap 'kill $job 2>/dev/null; rm -f "$log"; exit 130' INT TERM
    started=$(date +%s)
    seconds=0
    while kill -0 "$job" 2>/dev/null; do
        seconds=$(($(date +%s) - started))
        [ -t 1 ] && printf '\r%s ... %d s ' "$title" "$seconds"
        sleep 0.2
    done
    status=0
    wait "$job" || status=$?
    [ -t 1 ] && printf '\r'
    if [ "$status" -ne 0 ]; then
        cat "$log" >&2
        fail "Failed: $title. The lines above say why; run the same make command again once it is mended."
    fi
    printf '%s ... done (%d s)\n' "$title" "$seconds"
}

packages=$(wc -l <"$requirements" | tr -d ' ')
if command -v uv >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || run "Creating $venv" uv venv --quiet --python "$python" "$venv"
    run "Installing $packages packages into $venv with uv" \
        uv pip install --quiet --no-deps --python "$venv/bin/python" --requirements "$requirements"
else
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail \
        "'$python' lacks its venv module, so it cannot create $venv." \
        "Install it (Debian, Ubuntu: apt install python3-venv), or install uv, or name another Python: make PYTHON=..."
    [ -x "$venv/bin/pip" ] || run "Creating $venv" "$python" -m venv "$venv"
    # --no-compile: Python compiles the modules that are imported, and most never are.
    # --no-deps: the list is complete, so there is nothing to resolve.
    run "Installing $packages packages into $venv" \
        "$venv/bin/pip" install --quiet --no-compile --no-deps --disable-pip-version-check \
        --requirement "$requirements"
fi

# A path file and a script make the checkout importable at once. An editable install would do the same,
# but only after a build, with a build tool among the demo's packages.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd >"$site/notify_tasks_checkout.pth"
cat >"$venv/bin/notify" <<'SCRIPT'
#!/bin/sh
'''exec' "$(dirname "$0")/python" "$0" "$@"
' '''
import sys

from notify_tasks.cli import main

sys.exit(main())
SCRIPT
chmod +x "$venv/bin/notify"

cp "$requirements" "$venv/.$what"
