#!/bin/sh
# Lists the connections of an application with the published token. Needs the AWS CLI, jq and curl.
#
# The token is kept in a file for 5 minutes, and not beyond a minute before it expires. It is read once
# more when the API answers 401, and the request repeated if there is another. While the secret cannot
# be read, a token that is still valid stays in use.
set -eu

secret_id=${TOKEN_SECRET_ID:-smartcar-token/access-token}
url=${SMARTCAR_API_URL:-https://vehicle.api.smartcar.com/v3}
cache=${SMARTCAR_TOKEN_CACHE:-${XDG_RUNTIME_DIR:-$HOME/.cache}/smartcar-token.json}

# valid SECONDS: whether the kept token lives for so long.
valid() {
    jq -e --argjson seconds "$1" '.expires_at > now + $seconds' "$cache" > /dev/null 2>&1
}

# read_token: replace the kept token by the published one.
read_token() {
    mkdir -p "$(dirname "$cache")"
    (umask 077 && aws secretsmanager get-secret-value --secret-id "$secret_id" \
        --query SecretString --output text > "$cache.$$") && mv "$cache.$$" "$cache" && return
    rm -f "$cache.$$"
    valid 0
}

# connections: ask the API; the token goes through standard input, where no list of processes shows it.
connections() {
    jq -r '"header = \"Authorization: Bearer \(.access_token)\""' "$cache" |
        curl --silent --show-error --config - --write-out '\n%{http_code}' "$url/connections"
}

if ! valid 60 || [ -z "$(find "$cache" -mmin -5)" ]; then
    read_token || true
fi
if ! valid 0; then
    echo "secret $secret_id holds no valid token, or cannot be read" >&2
    exit 1
fi
answer=$(connections)
if [ "${answer##*
}" = 401 ]; then
    refused=$(cat "$cache")
    read_token
    [ "$refused" = "$(cat "$cache")" ] || answer=$(connections)
fi
status=${answer##*
}
echo "${answer%
*}"
[ "$status" = 200 ]
