#!/bin/sh
# Fetch the arm64 builds of the libraries that Unmask links and unpack them below a folder, for cross building and
# emulation.  Nothing is installed: apt works on lists of its own below that folder, so this machine's packages and its
# list of architectures stay as they are.
#   arm_libs.sh FOLDER
set -u
root=$1
packages="libsleef3 libsleef-dev libyaml-0-2 libyaml-dev libjansson4 libjansson-dev libpcre2-8-0 libpcre2-dev
    libutf8proc2 libutf8proc-dev libedit2 libedit-dev libbsd0 libmd0 libtinfo6 libnettle8 nettle-dev libcmocka0 libcmocka-dev"

[ "$(cat "$root/complete" 2>/dev/null)" != "$packages" ] || exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "The arm64 libraries come from Debian's archive by apt-get, which this machine lacks: $(echo $packages)"
    exit 1
fi
echo "Fetching, for the ARM tests: arm64 libraries, unpacked below $root"
mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/deb" || exit 1
root=$(cd "$root" && pwd) || exit 1

# apt-get on arm64 packages, as if none were installed.
arm_apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none \
        -o APT::Sandbox::User="$(id -un)" -o Dir::State::status=/dev/null \
        -o Dir::State::Lists="$root/apt/lists" -o Dir::Cache="$root/apt" "$@"
}

arm_apt update >"$root/apt/log" 2>&1         # a list that has no arm64 part counts as an error: what matters is the next step
if ! (cd "$root/deb" && arm_apt download $packages) >>"$root/apt/log" 2>&1; then
    echo "apt-get could not fetch them:"
    tail -n 5 "$root/apt/log"
    exit 1
fi
for deb in "$root"/deb/*.deb; do dpkg-deb -x "$deb" "$root" || exit 1; done
rm -rf "$root/apt" "$root/deb"
echo "$packages" >"$root/complete"
