# What the start scripts of the test servers share; they source it. A script has set `servers`, the folder
# of all servers, and `run`, that of its own, and has these functions:
#
#   install   what the server needs, if it is not there
#   launch    starts it: its identity goes to $run/process, how to reach it to $run/exports.new
#   ready     whether it can be used; may be asked before it listens
#   sweep     removes what it leaves outside of $run

ready_timeout_s=60

main() {
    (($# == 1)) || usage
    case $1 in
        start) start ;;
        stop) locked stop ;;
        status) running && cat "$run/exports" ;;
        *) usage ;;
    esac
}

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$script" >&2
    exit 2
}

start() {
    locked start_locked >&2
    cat "$run/exports"
}

# One start or stop of a server at a time in a checkout.
locked() {
    mkdir -p "$servers"
    (
        flock 9
        "$@"
    ) 9>"$servers/lock-${run##*/}"
}

start_locked() {
    if running; then
        return 0
    fi
    install
    local attempt
    # Another program may take a port between the choice and its use.
    for attempt in 1 2 3; do
        stop
        launch
        if await_ready; then
            return 0
        fi
        echo "${script##*/}: attempt $attempt failed; the log ends with:"
        tail -n 20 "$run/log" | sed 's/^/   | /'
        died || break
    done
    stop
    return 1
}

# Until the server can be used. Then the exports become visible.
await_ready() {
    local end=$((SECONDS + ready_timeout_s))
    while ((SECONDS < end)) && ! died; do
        if ready; then
            mv "$run/exports.new" "$run/exports"
            return 0
        fi
        sleep 0.2
    done
    return 1
}

# Free ports below those that the kernel gives to outgoing connections, this many, by the python of `venv`.
free_ports() {
    "$venv/bin/python" - "$1" <<'PYTHON'
import random, socket, sys

held = []
while len(held) < int(sys.argv[1]):
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", random.randrange(12000, 32000)))
        held.append(listener)
    except OSError:
        listener.close()
print(*(listener.getsockname()[1] for listener in held))
PYTHON
}

# The process and when it started: a number alone may be another's by now.
identity() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    read -ra stat <<<"${stat##*) }"
    echo "$1 ${stat[19]}"
}

died() {
    local pid
    read -r pid _ <"$run/process" || return 0
    [[ $(identity "$pid") != "$(cat "$run/process")" ]]
}

running() {
    [[ -s $run/exports ]] && ! died
}

# At once: an orderly end may take many seconds, and nothing of it is kept.
stop() {
    if [[ -s $run/process ]] && ! died; then
        local pid
        read -r pid _ <"$run/process"
        kill -KILL "$pid"
        while ! died; do sleep 0.05; done
    fi
    sweep
    rm -rf "$run"
}
