#!/usr/bin/env bash
# Installs the stand-in servers that the tests talk to, below the folder given: each in a Python environment of its own,
# since their dependencies contradict each other. Does nothing where that was done before with the same versions.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$1"

install() {
  local name="$1" folder="$root/$1" stamp
  stamp="$folder/.installed-$(cat "$here/$name.txt" "$here/local_bigquery.py" "$0" | cksum | cut -d' ' -f1)"
  [ -e "$stamp" ] && return
  echo "installing $name"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/pip" install -q --disable-pip-version-check -r "$here/$name.txt"
  if [ "$name" = local-bigquery ]; then
    # it asks for a newer Python than Debian 12 has; the script after it says what that takes
    "$folder/bin/pip" install -q --disable-pip-version-check --no-deps --ignore-requires-python local-bigquery==0.4.0
    "$folder/bin/python" "$here/local_bigquery.py"
  fi
  touch "$stamp"
}

install fakesnow
install local-bigquery
install minilake
