# Sourced by run_dev.sh, run_prod.sh and the Makefile's commands: finds a Python, makes the environment.
# Sets POLYVOX_VENV (absolute) and venv_python. The repository's root is the working directory.

venv_root="${POLYVOX_VENV:-$PWD/.venv}"
case "$venv_root" in /*) ;; *) venv_root="$PWD/$venv_root" ;; esac
export POLYVOX_VENV="$venv_root"
venv_python="$venv_root/bin/python"

# Prints the first Python that the dependencies support (3.11 to 3.13).
find_python() {
  local candidate
  for candidate in ${POLYVOX_PYTHON:+"$POLYVOX_PYTHON"} python3 python3.12 python3.11 python3.13 python; do
    if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 on PATH: install one, or name its executable in POLYVOX_PYTHON" >&2
  return 2
}

# make_environment EXTRAS [--yes] [--title TEXT]
make_environment() {
  local python extras="$1"
  shift
  if [ -x "$venv_python" ]; then
    python="$venv_python"
  else
    python="$(find_python)" || return 2
  fi
  "$python" -m training.scripts.environment --extras "$extras" "$@"
}
