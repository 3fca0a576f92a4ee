#!/bin/sh
# Lists the connections of an application with the published token. Needs the AWS CLI, jq and curl.
#
# The token is cached in a file for 5 minutes, but only until one minute before it expires. After a 401,
# the secret is read again, and the request is retried if the token has changed. A token is not read
# again within 10 seconds. While the secret cannot be read, a token that is still valid stays in use.
set -eu
umask 077

secret_id=${TOKEN_SECRET_ID:-smartcar-token/access-token}
url=${SMARTCAR_API_URL:-https://vehicle.api.smartcar.com/v3}
cache=${SMARTCAR_TOKEN_CACHE:-${XDG_RUNTIME_DIR:-$HOME/.cache}/smartcar-token.json}

# cached CONDITION: succeed if a token of this secret is cached and meets the condition.
cached() {
    jq -e --arg secret_id "$secret_id" "def age: now - .read_at | fabs;
        .secret_id == \$secret_id and ($1)" "$cache" > /dev/null 2>&1
}

# read_token: replace the cached token with the published one; any other value is not cached.
read_token() {
    mkdir -p "$(dirname "$cache")"
    aws secretsmanager get-secret-value --secret-id "$secret_id" --query SecretString --output text |
        jq -eRs --arg secret_id "$secret_id" 'fromjson? | objects
            | select((.access_token | strings != "") and (.expires_at | type == "number"))
            | . + {$secret_id, read_at: now}' > "$cache.$$" &&
        mv "$cache.$$" "$cache" || rm -f "$cache.$$"
}

# connections: call the API; the token is passed on standard input, so that no process list shows it.
connections() {
    jq -r '"header = \"Authorization: Bearer \(.access_token)\""' "$cache" |
        curl --silent --show-error --max-time 30 --config - --write-out '\n%{http_code}' "$url/connections"
}

cached 'age < 10 or (age < 300 and .expires_at > now + 60)' || read_token
if ! cached '.expires_at > now'; then
    echo "secret $secret_id holds no valid token, or cannot be read" >&2
    exit 1
fi
answer=$(connections)
if [ "${answer##*
}" = 401 ] && ! cached 'age < 10'; then
    rejected=$(jq .access_token "$cache")
    read_token
    [ "$rejected" = "$(jq .access_token "$cache")" ] || answer=$(connections)
fi
status=${answer##*
}
echo "${answer%
*}"
[ "$status" = 200 ] || { echo "Smartcar answered $status" >&2 && exit 1; }
