#!/bin/sh
# Prometheus and promtool for the tests of metrics, alert rules and the dashboard. Debian's package is
# unpacked beside the environment rather than installed: nothing needs root, and no server of it starts.
#   install-prometheus.sh FOLDER
set -eu
folder=$1

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi

if command -v apt-get >/dev/null; then
    mkdir -p "$folder"
    cd "$folder"
    # The lists may be missing or old; only root can renew them.
    apt-get download -q prometheus || { apt-get update && apt-get download -q prometheus; }
    dpkg-deb --fsys-tarfile prometheus_*.deb |
        tar --extract --strip-components=3 ./usr/bin/prometheus ./usr/bin/promtool
    rm prometheus_*.deb
    exit 0
fi

cat >&2 <<'END_OF_HELP'
The tests of metrics need prometheus and promtool on the PATH. Install them, then run this again:
    Fedora           sudo dnf install golang-github-prometheus
    Arch             sudo pacman -S prometheus
    macOS            brew install prometheus
END_OF_HELP
exit 1
