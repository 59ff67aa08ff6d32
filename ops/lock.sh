#!/usr/bin/env bash
# Renew the lock files from pyproject.toml: bash ops/lock.sh [uv's options, e.g. --upgrade-package aiohttp]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=$(command -v uv || echo "${CALLBOX_CACHE_DIR:-$HOME/.cache/callbox}/tools/bin/uv")

compile() { # compile LOCK [--extra NAME]
    "$uv" pip compile --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header \
        "${@:2}" pyproject.toml -o "$1"
}

compile requirements.lock "$@"
compile requirements-dev.lock --extra dev "$@"
compile requirements-torch.lock --extra torch "$@"
"$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
    --no-emit-index-url --no-header --override tests/tts/qwen3/unneeded.txt "$@" tests/tts/qwen3/oracle.in \
    -o tests/tts/qwen3/oracle.lock
