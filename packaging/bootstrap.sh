#!/bin/sh
# Makes the virtual environment $2 with the interpreter $1, pip included, from what a fresh Debian 12 has.
# Debian ships python3 without ensurepip (it comes with python3-venv), so pip may have to be brought in.
set -eu
python=$1
venv=$2

fail() {
    echo "bootstrap: $*" >&2
    exit 2
}

has_ensurepip() {
    "$python" -c 'import ensurepip' 2>/dev/null
}

# pip's own wheel from Debian's signed archive; downloading a package needs no root.
venv_with_downloaded_pip() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    (cd "$scratch" && apt-get download -qq python3-pip-whl && dpkg-deb -x ./*.deb .) >"$scratch/log" 2>&1 || return 1
    "$python" -m venv --clear --without-pip "$venv"
    wheel=$(echo "$scratch"/usr/share/python-wheels/pip-*.whl)
    "$venv/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is missing or older than Python 3.11; name another one with: make PYTHON=/path/to/python3"

if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if ! has_ensurepip && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "bootstrap: installing Debian's python3-venv"
    output=$(
        apt-get update -qq 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv 2>&1
    ) || fail "apt-get could not install python3-venv: $output"
fi
if has_ensurepip; then
    "$python" -m venv --clear "$venv"
else
    venv_with_downloaded_pip ||
        fail "$python has no ensurepip and pip could not be fetched; run: sudo apt install python3-venv"
fi
