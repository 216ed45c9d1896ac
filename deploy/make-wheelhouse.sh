#!/bin/bash
# Downloads every wheel of the image into deploy/wheelhouse, for a build without a package index.
#   deploy/make-wheelhouse.sh [PYTHON] [TORCH]
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-python3}"
torch="${2:-torch==2.13.0}"
"$python" deploy/requirements.py cluster >deploy/wheelhouse/requirements.txt
# shellcheck disable=SC2086  # TORCH may hold options
"$python" -m pip download --quiet --only-binary=:all: -d deploy/wheelhouse -c constraints.txt \
    -r deploy/wheelhouse/requirements.txt $torch
