#!/usr/bin/env bash
# Runs the README's commands as a user would, against the broker at its default address, and compares
# what they print. Leaves nothing running.
#
# usage: tests/interop/smoke.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec </dev/null

target="${CARGO_TARGET_DIR:-target}"
[[ $target = /* ]] || target="$PWD/$target"
PATH="$target/debug:$PATH"
for name in $(compgen -e BROKER_ || true); do unset "$name"; done
out="$(mktemp -d)"
started=()

finish() {
    local status=$?
    for pid in ${started[@]+"${started[@]}"}; do
        kill "$pid" 2>/dev/null || true
    done
    if [ $status != 0 ]; then
        for file in "$out"/*; do
            echo "--- $(basename "$file")"
            cat "$file"
        done >&2
    fi
    rm -rf "$out"
    exit $status
}
trap finish EXIT

fail() {
    echo "smoke: $*" >&2
    exit 1
}

# start NAME COMMAND...: in the background, its output in $out/NAME and $out/NAME.err.
start() {
    local name=$1
    shift
    "$@" >"$out/$name" 2>"$out/$name.err" &
    started+=($!)
}

# until_true WHAT COMMAND...: waits for a command to succeed, at most 30 s.
until_true() {
    local what=$1 tries=0
    shift
    until "$@" 2>/dev/null >&2; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "waited in vain for $what"
        sleep 0.05
    done
}

ended() { ! kill -0 "$1"; }

# status_of WHAT PID: waits for the end of what `start` started, and sets $status to how it ended.
status_of() {
    until_true "the end of $1" ended "$2"
    status=0
    wait "$2" || status=$?
}

# same WHAT FOUND EXPECTED
same() {
    [ "$2" = "$3" ] || fail "$1: found '$2' instead of '$3'"
    echo "ok: $1"
}

# exits WITH COMMAND...
exits() {
    local expected=$1 status=0
    shift
    "$@" >"$out/command" 2>"$out/command.err" || status=$?
    same "\`$*\` exits with $expected" $status "$expected"
}

# get PATH: the status and the last line of an HTTP answer.
get() {
    local answer
    exec 3<>/dev/tcp/127.0.0.1/1234
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    answer="$(tr -d '\r' <&3)"
    exec 3<&- 3>&-
    echo "$(head -n 1 <<<"$answer" | cut -d ' ' -f 2) $(tail -n 1 <<<"$answer")"
}

listening() { (exec 3<>/dev/tcp/127.0.0.1/1234) 2>/dev/null; }

if listening; then
    echo "SKIPPED: smoke: port 1234 is taken"
    exit 0
fi
# What the runs below would otherwise build while something waits for them. Each as it is run: examples
# build the dependencies with more features than the broker alone does.
cargo build --locked --quiet --examples
cargo build --locked --quiet --bin broker

## The README's first lines.
start broker cargo run --locked --quiet --bin broker
broker_pid=$!
until_true "the broker" broker health
same "broker health" "$(broker health)" SERVING

start sub cargo run --locked --quiet --example sub
sub_pid=$!
until_true "the example's subscription" grep -qx 'subscribed to gocn' "$out/sub.err"
same "example pub" "$(cargo run --locked --quiet --example pub)" \
    "gocn: 1 of 1 got it
greeting: 0 of 0 got it"
until_true "the example's message" test -s "$out/sub"
kill "$sub_pid"
status_of "the example" "$sub_pid"
same "example sub" "$(cat "$out/sub")" "hello, gophers!"

exits 0 cargo run --locked --quiet --example embed
exits 0 cargo run --locked --quiet --example stream numbers 1000

## From the shell.
start orders broker sub 'orders.>' --count 2
orders_pid=$!
until_true "the subscription" grep -q '^subscribed to orders.> at ' "$out/orders.err"
exits 0 broker pub orders.eu '42 sprockets'
same "broker pub" "$(cat "$out/command.err")" \
    "published 1 message to orders.eu: 1 matched, 1 delivered, 0 lost to full mailboxes"
printf 'one line\n' | broker pub orders.us 2>/dev/null
status_of "broker sub --count" "$orders_pid"
same "broker sub --count 2 exits with 0" $status 0
same "broker sub" "$(cat "$out/orders")" \
    "42 sprockets
one line"
exits 0 broker bench --duration 200ms --warmup 50ms --server-pid "$broker_pid"
exits 0 broker top --once --interval 100ms
exits 124 broker sub nothing.here --timeout 100ms
exits 1 broker pub 'not a topic' payload
exits 1 broker health no.such.service

## Watching it.
same "GET /health" "$(get /health)" "200 ok"
same "GET /ready" "$(get /ready)" "200 ready"
same "GET /" "$(get /)" "200 </html>"
same "GET /v1/topics" "$(get "/v1/topics?search=unheard.of" | grep -o '"found":0')" '"found":0'
same "GET /metrics" "$(get /metrics)" "200 # EOF"

## An orderly end.
kill -TERM "$broker_pid"
status_of "the broker" "$broker_pid"
same "the broker exits with 0 after SIGTERM" $status 0
exits 1 broker health
