#!/bin/sh
# Fetch the programs that tests of deployments run, from the machine's own Debian or Ubuntu sources, into .cache/tools.
# Nothing is installed and no service is started, but for two files: Debian's Alertmanager reads its templates
# from /usr/share and from nowhere else, so they are copied there (as root, or by sudo).
set -eu
cd "$(dirname "$0")/.."
packages="prometheus prometheus-alertmanager"
tools="$PWD/.cache/tools"
templates=/usr/share/prometheus/alertmanager

say() { echo "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! command -v apt-get >/dev/null; then
  say "make tools knows Debian and Ubuntu. Elsewhere put these on the PATH yourself:"
  say "prometheus, promtool, prometheus-alertmanager (or alertmanager), amtool."
  exit 1
fi

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for package in $packages; do
  [ -e "$tools/$package" ] && continue
  say "fetching $package into .cache/tools"
  if ! (cd "$fresh" && apt-get download -qq "$package" 2>/dev/null); then
    say "reading the lists of packages first (apt-get update)"
    as_root apt-get update -qq
    (cd "$fresh" && apt-get download -qq "$package")
  fi
  dpkg-deb -x "$fresh/$package"_*.deb "$fresh/$package"
  mkdir -p "$tools"
  mv "$fresh/$package" "$tools/$package"
done

for template in "$tools/prometheus-alertmanager$templates"/*.tmpl; do
  [ -e "$templates/$(basename "$template")" ] && continue
  say "copying Alertmanager's $(basename "$template") to $templates"
  as_root install -D -m 644 -t "$templates" "$template"
done
"$tools/prometheus/usr/bin/prometheus" --version | head -1
"$tools/prometheus-alertmanager/usr/bin/prometheus-alertmanager" --version | head -1
