#!/bin/sh
# Lists the connections of an application with the published token. Needs the AWS CLI, jq and curl.
#
# The token is cached in a file for 5 minutes, but only until one minute before it expires. After a 401,
# the secret is read again, and the request is retried if the token has changed. The secret is not read
# again within 10 seconds. While it cannot be read, a token that is still valid stays in use.
set -eu
umask 077

secret_id=${TOKEN_SECRET_ID:-smartcar-token/access-token}
url=${SMARTCAR_API_URL:-https://vehicle.api.smartcar.com/v3}
[ -n "${SMARTCAR_TOKEN_CACHE-}${XDG_RUNTIME_DIR-}${HOME-}" ] || { echo "cannot cache a token: set HOME" >&2 && exit 1; }
cache=${SMARTCAR_TOKEN_CACHE:-${XDG_RUNTIME_DIR:-$HOME/.cache}/smartcar-token.json}

missing=
for program in aws jq curl; do
    command -v "$program" > /dev/null || missing="$missing $program"
done
[ -z "$missing" ] || { echo "missing programs:$missing" >&2 && exit 1; }

mkdir -p "$(dirname "$cache")"
new=$cache.$$.new body=$cache.$$.body
trap 'rm -f "$new" "$body"' EXIT
trap 'exit 1' HUP INT TERM

# cached CONDITION: succeed if the last read of this secret, and the token from it, meet the condition.
cached() {
    # With jq 1.6, `-e` accepts an empty file.
    [ -s "$cache" ] && jq -e --arg secret_id "$secret_id" "def age: now - .read_at | fabs;
        .secret_id == \$secret_id and ($1)" "$cache" > /dev/null 2>&1
}

# read_token: cache the published token; if there is none, keep the one before, and that this read failed.
# Whether it is new is cached, too: `sh -x` would show tokens that are compared here.
read_token() {
    : >> "$cache"
    AWS_MAX_ATTEMPTS=2 aws secretsmanager get-secret-value --secret-id "$secret_id" \
        --query SecretString --output text --cli-connect-timeout 1 --cli-read-timeout 3 |
        jq -Rs --arg secret_id "$secret_id" --rawfile cached "$cache" '
            (($cached | fromjson? | objects | select(.secret_id == $secret_id)) // {}) as $before
            | (fromjson? | objects
                | select(.access_token | strings | test("\\A[A-Za-z0-9._~+/-]+=*\\z"))
                | select(.expires_at | numbers | . > 0 and . < infinite)
                | {access_token, expires_at, failed: false})
            // ($before | .failed = true)
            | . + {$secret_id, read_at: now, is_new: (.access_token != $before.access_token)}' > "$new"
    mv "$new" "$cache"
}

# call_api: print the status; the token is passed on standard input, so that no process list shows it.
call_api() {
    : > "$body" # curl does not create the file if the body is empty
    jq -r '"Authorization: Bearer \(.access_token)"' "$cache" |
        curl --silent --show-error --max-time 30 --header @- --output "$body" --write-out '%{http_code}' \
            "$url/connections"
}

cached 'age < 10 or (age < 300 and .expires_at > now + 60 and (.failed | not))' || read_token
if ! cached '.expires_at > now'; then
    problem=$(jq -r 'if .failed then "cannot be read" else "holds no valid token" end' "$cache")
    echo "secret $secret_id $problem" >&2
    exit 1
fi
status=$(call_api)
if [ "$status" = 401 ] && ! cached 'age < 10'; then
    read_token
    ! cached .is_new || status=$(call_api)
fi
cat "$body"
[ "$status" = 200 ] || { echo "Smartcar answered $status" >&2 && exit 1; }
