#!/usr/bin/env bash
# From a fresh machine or pod to a running box: bash post_start.sh
# Run it again whenever you like: what is there stays, what runs goes on. On RunPod it is the pod's post-start script.
# Settings are CALLBOX_* variables (daemons/settings.py names them all); those given here are kept in var/callbox.env.
set -euo pipefail

UV_VERSION=0.13.9
export HOME="${HOME:-/root}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$root"
var=${CALLBOX_VAR_DIR:-$root/var}
tools=${CALLBOX_CACHE_DIR:-$HOME/.cache/callbox}/tools
mkdir -p "$var/log" "$var/run"

# One at a time. The descriptor closes when `callbox up` ends, since it hands no descriptors on.
exec 9>"$var/run/post_start.lock"
flock -n 9 || { echo "another post_start.sh is at work here; waiting for it"; flock 9; }

step() { # step NAME MEND COMMAND...: what it says goes to a log; a failure says what, why, where, and what to do
    local name=$1 mend=$2 log code=0
    shift 2
    log=$var/log/install-${name// /-}.log
    echo "$name"
    (set -e; "$@") >"$log" 2>&1 & # in the background, since left of || bash would overlook failures inside
    wait $! || code=$?
    [ "$code" = 0 ] && return
    { echo "FAILED: $name (exit $code)"; tail -n 15 "$log" | sed 's/^/  /'; echo "all of it: $log"; echo "what to do: $mend"; } >&2
    exit 1
}

setting() { # setting NAME: from the environment, else the kept one
    local name=CALLBOX_$1
    if [ -n "${!name:-}" ]; then echo "${!name}"; return; fi
    [ -f "$var/callbox.env" ] && sed -n "s/^$name=//p" "$var/callbox.env" | tail -n 1
    return 0
}

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }
has_library() { PATH=$PATH:/usr/sbin:/sbin ldconfig -p 2>/dev/null | grep -q "^[[:space:]]*$1 "; }
fits() { [ -x "$1" ] && "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }

missing_packages() {
    has python3 || echo python3
    has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    has redis-server || echo redis-server
    has nginx || echo nginx
    has openssl || echo openssl
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    has_library libgomp.so.1 || echo libgomp1
    has_library libstdc++.so.6 || echo libstdc++6
}

policy=/usr/sbin/policy-rc.d
restore_policy() {
    rm -f "$policy"
    [ ! -e "$policy.callbox" ] || mv "$policy.callbox" "$policy"
}
apt_install() { # without starting the services that the packages bring; the machine's own policy comes back at the end
    [ ! -e "$policy" ] || mv "$policy" "$policy.callbox"
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q install -y --no-install-recommends "$@"
}

packages=$(missing_packages | xargs)
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && has apt-get; then
        # shellcheck disable=SC2086
        step "system packages" "see that apt-get works here, or install by hand: $packages" apt_install $packages
    else
        echo "FAILED: system packages" >&2
        echo "what to do: have root install $packages (names as in Debian), then run this again" >&2
        exit 1
    fi
fi

make_tools() {
    [ -x "$tools/bin/pip" ] && "$tools/bin/python" -c '' 2>/dev/null || python3 -m venv --clear "$tools"
    "$tools/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --only-binary :all: "uv==$UV_VERSION"
}
network="see that the Python package index is reached from here (a proxy? its certificate?)"
if [ "$("$tools/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    step "build tools" "$network" make_tools
fi
uv=$tools/bin/uv

make_environment() {
    if ! fits .venv/bin/python; then
        if fits "$(command -v python3)"; then "$uv" venv --clear --python "$(command -v python3)" .venv
        else "$uv" venv --clear --managed-python --python 3.11 .venv; fi
    fi
    "$uv" pip sync --python .venv/bin/python --require-hashes "$lock"
    "$uv" pip install --python .venv/bin/python --no-deps --editable .
    sha256sum "$lock" pyproject.toml >.venv/installed
}
lock=requirements.lock
if [ "$(setting PROFILE)" = gpu ]; then lock=requirements-torch.lock; fi
if [ -e .venv/bin/pytest ]; then lock=requirements-dev.lock; fi # whoever has the tests' tools keeps them
if ! fits .venv/bin/python || [ "$(sha256sum "$lock" pyproject.toml)" != "$(cat .venv/installed 2>/dev/null)" ]; then
    step "python environment" "$network; \`rm -rf .venv\` starts it afresh" make_environment
fi

exec .venv/bin/callbox up
