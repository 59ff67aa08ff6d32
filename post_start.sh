#!/usr/bin/env bash
# From a fresh machine or pod to a running box: bash post_start.sh
# Run it again whenever you like: what is there stays, what runs goes on. On RunPod it is the pod's post-start script.
# Settings are CALLBOX_* variables (daemons/settings.py names them all); those given here are kept in var/callbox.env.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ops/install.sh
one_at_a_time

lock=requirements.lock
if [ "$(setting PROFILE)" = gpu ]; then lock=requirements-torch.lock; fi
if [ -e .venv/bin/pytest ]; then lock=requirements-dev.lock; fi # whoever has the tests' tools keeps them

# shellcheck disable=SC2046
install_packages $(missing_packages)
install_tools
install_environment "$lock"
exec .venv/bin/callbox up
