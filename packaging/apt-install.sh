#!/bin/sh
# Installs the Debian packages listed in the file $1, where that is allowed; else says what is missing.
# Always succeeds: the tests decide what a missing package means (a skip, or in CI a failure).
set -eu
list=$1

missing=
# shellcheck disable=SC2013 # words are wanted: a package name has no spaces
for package in $(sed 's/#.*//' "$list"); do
    # db:Status-Status is empty for a package that dpkg has never seen.
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

give_up() {
    echo "Debian packages missing, so the tests that need them are skipped:$missing"
    echo "  ($1; to install them: sudo apt install --no-install-recommends$missing)"
    exit 0
}

command -v apt-get >/dev/null || give_up "apt-get is not here"
[ "$(id -u)" = 0 ] || give_up "not root"
# Some of these are servers, and a host that runs services would start them for good.
[ ! -d /run/systemd/system ] || give_up "this host's systemd would start the servers among them"

# The tests start the servers themselves; policy-rc.d keeps the packages from doing so.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

echo "Installing Debian packages for the tests:$missing"
log=$(mktemp)
if ! {
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
} >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    give_up "apt-get failed"
fi
rm -f "$log"
