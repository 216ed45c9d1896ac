#!/bin/bash
# Makes the Dockerfile's base image from Debian's packages, where no image registry can be reached.
# As root, with debootstrap and docker:  deploy/make-base.sh [TAG]
set -euo pipefail
tag="${1:-python:3.11-slim-bookworm}"
mirror="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase \
    --include=python3,python3-venv,ca-certificates bookworm "$root" "$mirror"
ln -sf python3 "$root/usr/bin/python"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
tar -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$tag"
