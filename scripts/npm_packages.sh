#!/usr/bin/env bash
# Unpacks the npm packages that tests/conformance/package.json pins into .cache/npm/node_modules: the packages alone,
# without what they depend on (what the tests load of them is bundled), and without running any of their scripts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HOME_OF=.cache/npm
readonly RECIPE=tests/conformance/package.json

command -v node >/dev/null && command -v npm >/dev/null || {
  printf 'node and npm are needed (Debian: apt-get install nodejs npm)\n' >&2
  exit 1
}
[[ -r $HOME_OF/package.json ]] && cmp -s "$RECIPE" "$HOME_OF/package.json" && exit 0
rm -rf "$HOME_OF"
mkdir -p "$HOME_OF"
node -p "Object.entries(require('./$RECIPE').dependencies).map((one) => one.join(' ')).join('\n')" \
  | while read -r name version; do
    folder=$HOME_OF/node_modules/$name
    mkdir -p "$folder"
    archive=$(npm pack --silent --ignore-scripts --pack-destination "$HOME_OF" "$name@$version" </dev/null | tail -n 1)
    tar -xzf "$HOME_OF/$archive" --strip-components=1 -C "$folder"
    rm "$HOME_OF/$archive"
  done
cp "$RECIPE" "$HOME_OF/package.json"
