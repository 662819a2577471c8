#!/usr/bin/env bash
# Looks for secrets in what the tests logged.
#
#   tests/secrets.sh FOLDER   in all files of a folder; status 1 if there is one
#   tests/secrets.sh --check  that each kind is found where it is put
#
# What is looked for: the texts of tests/support/secrets.txt, the secrets of the tests' servers in the
# environment, and what looks like the authorization of a request. Prints where something was found, not what,
# and at the end `N lines searched, N with a secret`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Signatures of S3, of shared access, of an account's key; bearer tokens.
authorizations='Signature=[0-9a-f]{32}|[?&]sig=[A-Za-z0-9%+/=_-]{20}|SharedKey [^ :]+:[A-Za-z0-9+/=]{30}|Bearer [A-Za-z0-9._-]{20}'

known() {
    cut -f2 tests/support/secrets.txt
    printf '%s\n' "${SYNCLINE_TEST_S3_SECRET_KEY:-}" "${SYNCLINE_TEST_AZ_KEY:-}" | grep . || true
}

search() {
    local folder=$1 lines found
    lines=$(find "$folder" -type f -exec cat {} + | wc -l)
    found=$({
        grep -rnaF -f <(known) "$folder" || true
        grep -rnaE "$authorizations" "$folder" || true
    } | cut -d: -f1,2 | sort -u)
    [[ -z $found ]] || sed 's/^/a secret in line /' <<<"$found"
    found=$(grep -c . <<<"$found" || true)
    echo "$lines lines searched, $found with a secret"
    ((found == 0))
}

check() {
    local text
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    printf 'nothing of interest\n' >"$folder/clean"
    search "$folder" >/dev/null || { echo "found where there is none" >&2; return 1; }
    while read -r text; do
        printf 'a line\nbefore %s behind\n' "$text" >"$folder/log"
        ! search "$folder" >/dev/null || { echo "not found: $text" >&2; return 1; }
    done < <(
        known
        echo "Signature=0123456789abcdef0123456789abcdef"
        echo "http://h/k?sv=1&sig=abcdefghijklmnopqrstuvwxyz%3D"
        echo "SharedKey account:0123456789abcdefghijABCDEFGHIJ0123456789="
        echo "Bearer eyJhbGciOiJIUzI1NiJ9.eyJz"
    )
}

case ${1:-} in
    --check) check ;;
    "" | -*) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
    *) search "$1" ;;
esac
