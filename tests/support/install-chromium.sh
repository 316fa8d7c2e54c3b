#!/bin/sh
# Chromium for the tests of pages. Playwright's own download is a browser of its making; the
# system's is the one that people have, and comes with the system's updates.
set -eu

if command -v chromium >/dev/null; then
    exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core
    exit 0
fi

cat >&2 <<'END'
The tests of the chat's page need chromium on the PATH. Install it, then run this again:
    Debian, Ubuntu   sudo apt-get install chromium
    Fedora           sudo dnf install chromium
    Arch             sudo pacman -S chromium
    macOS            brew install --cask chromium
END
exit 1
