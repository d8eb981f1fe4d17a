#!/bin/sh
# Builds the locked environment in .venv, once: `setup.sh runtime` for running, `setup.sh dev` adds the tools.
# It is built again when uv.lock or pyproject.toml change, or when the folder has moved.
# What pip and uv are told by the environment (an index, a proxy, certificates) holds here too.
set -u

UV_VERSION=0.13.9 # pinned: the lock file is read by the uv that wrote it
VENV=.venv
STAMP=$VENV/.everturn
LOG=$VENV/setup.log
group=$1

cd "$(dirname "$0")/.." || exit 1

say() { echo "set-up: $*" >&2; }
fail() { say "$*"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer: name one that is, or leave PYTHON out."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    found=$(python3 -V 2>&1) || found='no python3 at all'
    fail "Everturn needs Python 3.11 or newer and found $found: install one, or run make with PYTHON=/path/to/python3."
}

# Group of the environment that is there, if it was built here from the same files; else nothing.
built_group() {
    [ -f "$STAMP" ] && new_enough "$VENV/bin/python" || return 0
    read -r old_group old_sum <"$STAMP"
    [ "$old_sum" = "$inputs" ] && echo "$old_group"
}

make_venv() {
    new_enough "$VENV/bin/python" && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    python=$(find_python) || exit 1
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        fail "$python has no venv module: install it (on Debian or Ubuntu: apt install python3-venv), then run make again."
    mkdir -p "$VENV" 2>/dev/null || fail "cannot write to $PWD: make the folder writable, or clone into one that is."
    say "making $VENV with $("$python" -V)"
    "$python" -m venv --clear "$VENV" >/dev/null 2>&1 ||
        fail "$python -m venv $VENV failed: run that command to see why, then run make again."
}

install_locked() {
    groups=--no-dev
    [ "$group" = dev ] && groups='--group dev'
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" || return 1
    # --inexact: the tools stay where only the runtime is asked for.
    # shellcheck disable=SC2086
    "$VENV/bin/uv" sync --frozen --inexact $groups --python "$VENV/bin/python" && return 0
    # Behind a mirror that only pip knows of, pip installs the same versions, checked against the same hashes.
    # shellcheck disable=SC2086
    "$VENV/bin/uv" export --frozen $groups --no-emit-project --quiet --output-file "$VENV/locked.txt" >/dev/null &&
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$VENV/locked.txt" &&
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
}

inputs=$( (pwd; cat uv.lock pyproject.toml) | cksum | tr ' ' '-')
case $(built_group) in "$group" | dev) exit 0 ;; esac
[ -w . ] || fail "cannot write to $PWD: make the folder writable, or clone into one that is."
make_venv
if [ -f "$STAMP" ] && read -r old_group _ <"$STAMP" && [ "$old_group" = dev ]; then group=dev; fi

say "installing the locked packages; this takes about half a minute, once"
unset VIRTUAL_ENV
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE:-1}"
export UV_PROJECT_ENVIRONMENT="$VENV" UV_PYTHON_DOWNLOADS=never
if ! install_locked >"$LOG" 2>&1; then
    fail "pip could not install the locked packages: check the network, or the index and proxy that pip is set to use, and run make again; details are in $LOG."
fi
# uv has done so for the packages; else the first start does.
"$VENV/bin/python" -m compileall -q src >>"$LOG" 2>&1 || fail "src does not compile: details are in $LOG."
echo "$group $inputs" >"$STAMP"
say "ready"
