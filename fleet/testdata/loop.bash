# The loop of a shell job: it calls the API by the function of its kind, and tries again until it is let in, as a job has to that gets its
# token from a command. What it typed is kept as the history of a shell would keep it.
set -u
HISTFILE=$FLEET_HISTORIES/$FLEET_JOB
set -o history

call=(curl -sS --max-time 20 --cacert "$FLEET_CA" -o /dev/null -w '%{http_code}')
bearer() { printf 'Authorization: Bearer %s\n' "$1"; }
api() { "${call[@]}" -H "X-Request: $id" "$@" "$FLEET_URL"; }
broker() { tokenctl --timeout 5s "$@"; }

get() {
  local token
  token=$(broker get "$FLEET_CREDENTIAL") && bearer "$token" | api -H @-
}
header() { broker header "$FLEET_CREDENTIAL" | api -H @-; }
curls() { tokenctl --timeout 20s curl "$FLEET_CREDENTIAL" -- "${call[@]:1}" -H "X-Request: $id" "$FLEET_URL"; }
environment() {
  id=$id broker exec --env "API_TOKEN=$FLEET_CREDENTIAL" -- bash -c \
    'printf "Authorization: Bearer %s\n" "$API_TOKEN" | "$@" -H "X-Request: $id" -H @- "$FLEET_URL"' - "${call[@]}"
}
file() { bearer "$(<"$TOKEN_FILE")" | api -H @-; }
sink() { api -H "@$FLEET_SINK"; }
socket() { curl -sS --max-time 20 --unix-socket "$FLEET_SOCKET" "http://localhost/v1/token/$FLEET_CREDENTIAL?format=header" | api -H @-; }
plugin() {
  local token
  token=$(broker get -o exec-credential "$FLEET_CREDENTIAL" | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p') && bearer "$token" | api -H @-
}
helper() {
  local token
  token=$(printf 'protocol=https\nhost=api\n\n' | git -c credential.helper= -c "credential.helper=!tokenctl --timeout 5s git-credential --host api $FLEET_CREDENTIAL" \
    credential fill | sed -n 's/^password=//p') && bearer "$token" | api -H @-
}

for ((n = 0; ; n++)); do
  [ -e "$FLEET_STOP" ] && break
  id=$FLEET_JOB-$n began=$EPOCHREALTIME last=$((SECONDS + FLEET_WAIT)) code=000
  while :; do
    code=$("$FLEET_KIND")
    [ "$code" = 200 ] || [ "$code" = 403 ] || [ $SECONDS -ge $last ] && break
    sleep 0.2
  done
  echo "request $id $began $EPOCHREALTIME ${code:-000}"
  sleep 0.2
done
history -w
