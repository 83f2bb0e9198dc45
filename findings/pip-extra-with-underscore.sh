#!/usr/bin/env bash
# A package that asks another one for an extra gets what that extra names, one would think. jusText asks
# for `lxml[html_clean]`, and lxml calls that extra `html-clean`: the standard has both for one name.
# pip 23.2.1, which Python 3.11.7 brings into every new venv, takes them for two. It warns in one line,
# leaves the extra out and ends with 0, and `pip check` finds nothing amiss. So `pip install
# trafilatura` gives a package that cannot be imported. pip 26.3 installs all of it.
#
# Seen with jusText 3.0.2, lxml 6.1.3 and trafilatura 2.3.1. This script fails where it is no longer so.
# It needs Python >= 3.11 and a minute of downloads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for pip in 23.2.1 26.3; do
  python3 -m venv "$folder/$pip"
  python="$folder/$pip/bin/python"
  "$python" -m pip install --quiet --disable-pip-version-check "pip==$pip"
  "$python" -m pip install --quiet --disable-pip-version-check \
    "trafilatura==2.3.1" "justext==3.0.2" "lxml==6.1.3" 2> "$folder/$pip.err"
  "$python" -m pip check > /dev/null
  if "$python" -c "import trafilatura" 2> /dev/null; then said=imported; else said=failed; fi
  echo "pip $pip: import trafilatura: $said; $(grep -m 1 'does not provide' "$folder/$pip.err" || true)"
  echo "$said" > "$folder/$pip.said"
done
[ "$(cat "$folder/23.2.1.said")" = failed ]
[ "$(cat "$folder/26.3.said")" = imported ]
echo "as seen: pip 23.2.1 leaves out an extra that is spelt with an underscore"
