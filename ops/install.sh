# What post_start.sh and tests/run share: the lock, the system's packages, the build tools, the Python environment.
# Sourced from the repository's root under `set -euo pipefail`. Each step is named, and a failing one says what to do.

UV_VERSION=0.13.9
export HOME="${HOME:-/root}"
var=${CALLBOX_VAR_DIR:-$PWD/var}
tools=${CALLBOX_CACHE_DIR:-$HOME/.cache/callbox}/tools
uv=$tools/bin/uv
network="see that the Python package index is reached from here (a proxy? its certificate?)"
mkdir -p "$var/log" "$var/run"

one_at_a_time() { # the descriptor closes when what follows ends, since it hands no descriptors on
    exec 9>"$var/run/install.lock"
    flock -n 9 || { echo "another installation is at work here; waiting for it"; flock 9; }
}

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

install_packages() { # install_packages PACKAGE...: none is fine
    [ $# != 0 ] || return 0
    if [ "$(id -u)" = 0 ] && has apt-get; then
        step "system packages" "see that apt-get works here, or install by hand: $*" apt_install "$@"
    else
        echo "FAILED: system packages" >&2
        echo "what to do: have root install $* (names as in Debian), then run this again" >&2
        exit 1
    fi
}

make_tools() {
    [ -x "$tools/bin/pip" ] && "$tools/bin/python" -c '' 2>/dev/null || python3 -m venv --clear "$tools"
    "$tools/bin/python" -m pip install --disable-pip-version-check --no-cache-dir --only-binary :all: "uv==$UV_VERSION"
}
install_tools() {
    [ "$("$uv" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ] || step "build tools" "$network" make_tools
}

make_environment() { # make_environment LOCK
    if ! fits .venv/bin/python; then
        if fits "$(command -v python3)"; then "$uv" venv --clear --python "$(command -v python3)" .venv
        else "$uv" venv --clear --managed-python --python 3.11 .venv; fi
    fi
    "$uv" pip sync --python .venv/bin/python --require-hashes "$1"
    "$uv" pip install --python .venv/bin/python --no-deps --editable .
    sha256sum "$1" pyproject.toml >.venv/installed
}
install_environment() { # install_environment LOCK
    if ! fits .venv/bin/python || [ "$(sha256sum "$1" pyproject.toml)" != "$(cat .venv/installed 2>/dev/null)" ]; then
        step "python environment" "$network; \`rm -rf .venv\` starts it afresh" make_environment "$1"
    fi
}
