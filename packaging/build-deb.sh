#!/bin/bash
# Builds scpln-backup_VERSION_ARCH.deb from this checkout, on Debian 12, into the folder $1 (default: dist/).
#
#   packaging/build-deb.sh [FOLDER]
#
# The package carries its libraries: the wheels that requirements.lock names, checked by their hashes, are fetched once
# and kept in $SCPLN_BACKUP_DEB_CACHE (default: .cache/deb). Two builds of one commit are the same to the byte: every
# time in the package is at most $SOURCE_DATE_EPOCH (default: the time of the commit, else of the newest release).
# $PYTHON is an interpreter with what requirements.lock and requirements-build.lock name (default: the one of .venv).
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
output=$(realpath -m "${1:-$checkout/dist}")
python=${PYTHON:-$checkout/.venv/bin/python}
cache=${SCPLN_BACKUP_DEB_CACHE:-$checkout/.cache/deb}
suite_python=3.11 # Debian 12's, which the libraries are for
tools=(debhelper dpkg-dev)

fail() {
    echo "build-deb: $*" >&2
    exit 2
}

need_tools() {
    local missing=() tool
    for tool in "${tools[@]}"; do
        # db:Status-Status is empty for a package that dpkg has never seen.
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$tool" 2>/dev/null || true)" = installed ] || missing+=("$tool")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || fail "Debian packages are missing; run: sudo apt install --no-install-recommends ${missing[*]}"
    echo "Installing Debian packages for the build: ${missing[*]}"
    local said
    said=$(
        apt-get update -qq 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" 2>&1
    ) || fail "apt-get could not install ${missing[*]}: $said"
}

# The libraries as pip leaves them, without what only a developer or another system would use; sets $libraries.
libraries=
find_libraries() {
    local lock=$checkout/packaging/requirements.lock digest scratch
    digest=$({
        cat "$lock" "$checkout/packaging/requirements-build.lock"
        dpkg --print-architecture
        declare -f find_libraries
    } | sha256sum | cut -c1-16)
    libraries=$cache/libraries-$digest
    [ ! -d "$libraries" ] || return 0
    echo "Fetching the libraries into $cache"
    mkdir -p "$cache"
    scratch=$(mktemp -d "$cache/fetching-XXXXXX")
    # Only sdnotify is published as source alone; it is built with the pinned tools of requirements-build.lock.
    "$python" -m pip install -qq --disable-pip-version-check --no-input --require-hashes --no-deps \
        --only-binary :all: --no-binary sdnotify --no-build-isolation --use-pep517 \
        --no-compile --python-version "$suite_python" --target "$scratch" --requirement "$lock" || {
        rm -rf "$scratch"
        fail "pip could not fetch the libraries"
    }
    # The zones are Debian's own, in the package tzdata, and the rest is nothing that runs.
    (cd "$scratch" && rm -rf bin tzdata tzdata-*.dist-info certifi/tests)
    find "$scratch" \( -name '*.pyi' -o -name '*.c' -o -name '*.h' \) -delete
    # Modules are imported, not run, and some would like a /usr/bin/python that there is not.
    find "$scratch" -type f -exec chmod a-x {} +
    find "$scratch" -name '*.py' -exec sed -i '1s/^#!.*//' {} +
    # Whoever was quicker has made the same.
    mv -T "$scratch" "$libraries" 2>/dev/null || rm -rf "$scratch"
}

# The package's own files where they will be, in root/, and beside it what debhelper installs itself.
lay_out() {
    local version=$1 catalog_version=$2 share=root/usr/share name
    mkdir -p root/usr/bin root/usr/lib/{sysusers.d,tmpfiles.d} root/lib/systemd/system root/etc/scpln-backup \
        $share/scpln-backup $share/bash-completion/completions $share/zsh/vendor-completions $share/fish/vendor_completions.d

    cp -r "$libraries" root/usr/lib/scpln-backup
    cp -r "$checkout/daemon/scpln_backup" root/usr/lib/scpln-backup/
    # The licences are in the copyright file; the rest is pip's own record of what it did, and isal's C sources.
    rm -rf root/usr/lib/scpln-backup/*.dist-info/{licenses,RECORD,INSTALLER,REQUESTED,direct_url.json} \
        root/usr/lib/scpln-backup/isal/isa-l
    find root/usr/lib/scpln-backup \( -name 'LICENSE*' -o -name 'AUTHORS*' \) -delete
    find root/usr/lib/scpln-backup -name __pycache__ -prune -exec rm -rf {} +

    install -m 0755 "$checkout/packaging/launcher" root/usr/bin/scpln-backup
    cp "$checkout"/systemd/* root/lib/systemd/system/
    cp "$checkout/packaging/debian/sysusers.conf" root/usr/lib/sysusers.d/scpln-backup.conf
    cp "$checkout/packaging/debian/tmpfiles.conf" root/usr/lib/tmpfiles.d/scpln-backup.conf
    cp "$checkout/packaging/debian/config.toml" root/etc/scpln-backup/
    cp generated/config.schema.json $share/scpln-backup/
    cp generated/scpln-backup.bash $share/bash-completion/completions/scpln-backup
    cp generated/_scpln-backup $share/zsh/vendor-completions/
    cp generated/scpln-backup.fish $share/fish/vendor_completions.d/
    cp -r "$checkout/packaging/prometheus" $share/scpln-backup/
    rm -rf $share/scpln-backup/prometheus/tests

    cp -r "$checkout"/{README.md,README.ja.md,CHANGELOG.md,config.example.toml,docs} .
    mkdir -p debian/source
    echo '3.0 (native)' >debian/source/format
    for name in control rules install docs examples links manpages; do
        cp "$checkout/packaging/debian/$name" debian/
    done
    for name in preinst postinst prerm postrm; do
        sed "s/@VERSION@/$version/; s/@CATALOG_VERSION@/$catalog_version/" "$checkout/packaging/debian/$name" >"debian/$name"
    done
    cp "$checkout/packaging/logrotate/scpln-backup" debian/scpln-backup.logrotate
    cp generated/{changelog,copyright} debian/
}

need_tools
"$python" -c 'import scpln_backup, click, setuptools' 2>/dev/null ||
    fail "$python has not what the build needs; run: make deb (or set PYTHON)"
find_libraries

export PYTHONPATH=$checkout/daemon PYTHONDONTWRITEBYTECODE=1
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git -C "$checkout" log -1 --format=%ct 2>/dev/null) ||
        SOURCE_DATE_EPOCH=$(date -ud "$(grep -om1 '[0-9]*-[0-9]*-[0-9]*$' "$checkout/CHANGELOG.md")" +%s)
fi
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/scpln-backup"
cd "$work/scpln-backup"
"$python" "$checkout/packaging/generate" generated "$libraries"
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' generated/changelog)
lay_out "$version" "$("$python" -c 'from scpln_backup.records.schema import VERSION; print(VERSION)')"
# dpkg brings later times down to the epoch, and leaves earlier ones, which differ from one checkout to the next.
find . -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
log=$work/log
# As dpkg-buildpackage would, without the files for an upload. The variable is its word for: files are root's anyhow.
DEB_RULES_REQUIRES_ROOT=no debian/rules binary >"$log" 2>&1 || {
    tail -n 40 "$log" >&2
    fail "the package could not be built"
}
mkdir -p "$output"
package=scpln-backup_${version}_$(dpkg --print-architecture).deb
mv "$work/$package" "$output/$package"
echo "$output/$package"
