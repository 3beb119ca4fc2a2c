# Sourced by run_experiments.sh and run_tests.sh: finds a Python, and installs what it lacks into .venv.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$here/.venv"

# Nothing is imported from the working folder: Python takes an empty entry for it, and `-m` puts it first.
import_path() {
    local entry path="$here" entries
    IFS=: read -ra entries <<<"${PYTHONPATH:-}"
    for entry in ${entries[@]+"${entries[@]}"}; do
        [ -z "$entry" ] || [ "$entry" -ef . ] || path+=":$entry"
    done
    echo "$path"
}
PYTHONPATH="$(import_path)"
export PYTHONPATH
start="$here/gated_bert/start.py"

# Sets $python to the first Python from 3.11 on; newer ones than TensorFlow has wheels for only where there is no other.
find_python() {
    local candidate newest
    for newest in 13 99; do
        for candidate in python3 python python3.13 python3.12 python3.11 python3.14; do
            if "$candidate" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null; then
                python="$candidate"
                return
            fi
        done
    done
    echo "error: no Python 3.11 or newer is on the PATH; install one" >&2
    exit 2
}

# has PYTHON EXTRA…: whether that Python has all the requirements.
has() {
    "$1" "$start" gated_bert.installation "${@:2}" >/dev/null 2>&1
}

# ensure_installed EXTRA…: leaves in $python one that has all the requirements.
ensure_installed() {
    if has "$python" "$@"; then
        return
    fi
    # Two launchers that start at once must not fill one .venv together.
    if command -v flock >/dev/null; then
        exec 9<"$here/setup.cfg"
        flock -n 9 || { echo "waiting for another installation into $venv" >&2; flock 9; }
    fi
    if [ -e "$venv/.incomplete" ] || { [ -d "$venv" ] && ! "$venv/bin/python" -c '' 2>/dev/null; }; then
        echo "$venv is half made; it is made anew" >&2
        rm -rf "$venv"
    fi
    if ! has "$venv/bin/python" "$@"; then
        trap 'echo "stopped; the same command goes on with the installation" >&2; exit 130' INT TERM
        install "$@"
        trap - INT TERM
    fi
    exec 9<&-
    python="$venv/bin/python"
}

install() {
    local extras
    extras="$(IFS=,; echo "$*")"
    echo "installing gated_bert[$extras] into $venv (once; some minutes and about 2 GB)" >&2
    if [ ! -d "$venv" ]; then
        mkdir "$venv"
        touch "$venv/.incomplete"
        "$python" -I -m venv "$venv" >&2 || {
            echo "error: $python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2
            exit 2
        }
    fi
    # seqeval comes as source alone, which pip's older way of building cannot build.
    PIP_USE_PEP517=1 "$venv/bin/python" -I -m pip install --no-input --disable-pip-version-check -e "$here[$extras]" >&2 || {
        echo "error: the installation failed (above is why); the same command tries again" >&2
        exit 2
    }
    rm -f "$venv/.incomplete"
}
