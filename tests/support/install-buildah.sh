#!/bin/sh
# What builds images without an engine: buildah, and mmdebstrap for a base made of Debian's packages.
set -eu

if command -v buildah >/dev/null && command -v mmdebstrap >/dev/null; then
    exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends buildah mmdebstrap
    exit 0
fi

cat >&2 <<'END'
The tests of the images need buildah and mmdebstrap on the PATH, and root. Install them, then run this again:
    Debian, Ubuntu   sudo apt-get install buildah mmdebstrap
END
exit 1
