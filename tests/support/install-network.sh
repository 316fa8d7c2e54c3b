#!/bin/sh
# What the cluster of network namespaces is made of: hosts, lines, and a balancer before the edges.
set -eu

if command -v ip >/dev/null && command -v tc >/dev/null && command -v iptables >/dev/null &&
    command -v haproxy >/dev/null; then
    exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends haproxy iproute2 iptables
    exit 0
fi

cat >&2 <<'END'
The tests of the cluster need haproxy, ip, tc and iptables on the PATH, and root. Install them, then run this again:
    Debian, Ubuntu   sudo apt-get install haproxy iproute2 iptables
    Fedora           sudo dnf install haproxy iproute iproute-tc iptables
    Arch             sudo pacman -S haproxy iproute2 iptables
END
exit 1
