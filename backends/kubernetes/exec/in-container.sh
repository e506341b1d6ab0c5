#!/bin/sh
# in-container NAME COMMAND [ARGUMENT...]
# Runs a command in another container of this pod, in this directory and with this build's variables.
# Ends as the command ends. Of its own: 125 it could not be run, 127 there is no curl or no shell.
api='@URL@'
told='@SETTINGS@'

say() {
    printf 'in-container: %s\n' "$*" >&2
}

ask() {
    curl -q --config "$told" "$@"
}

# What streams is not to die of the signal that the command is to get: its last words count.
stream() {
    trap '' HUP INT TERM
    exec curl -q --config "$told" --fail --retry 5 --retry-connrefused "$@"
}

cut() {
    kill -9 $streams 2>/dev/null
}

# A signal to this program goes to the command; if it cannot, the broken streams tell the broker.
pass_on() {
    [ -n "$streams" ] || exit "$2"
    if ! ask --fail --max-time 20 --request POST "$here/signal/$1" >/dev/null; then
        broken=$2
        cut
    fi
}

# The shell's own wait ends at every signal.
finish() {
    wait "$1" 2>/dev/null
    ended=$?
    while kill -0 "$1" 2>/dev/null; do
        wait "$1" 2>/dev/null
        ended=$?
    done
}

order() {
    printf '%s\0' "$container" "$PWD" "$input" "$#" "$@"
    cat /proc/1/environ 2>/dev/null # what this container had before any build
    printf '\0'
    cat "/proc/$$/environ"
}

# The broker knows nothing of this command: another one has taken its place.
lost() {
    if [ -n "$pid" ] && ask --fail --retry 5 --retry-connrefused --request POST \
        "$here/signal/END?container=$container&pid=$pid" >/dev/null; then
        say "the broker was restarted; the command was ended"
    else
        say "the broker at $api does not answer or does not know this command; it may still run"
    fi
    exit 125
}

if [ $# -lt 2 ]; then
    say "usage: in-container NAME COMMAND [ARGUMENT...]"
    exit 125
fi
if ! command -v curl >/dev/null; then
    say "there is no curl in this container; use an image that has it"
    exit 127
fi
if ! [ -r "$told" ]; then
    say "$told is closed to this user; run it as the agent's own"
    exit 125
fi
container=$1
shift
here=$api/$(cat /proc/sys/kernel/random/uuid)
streams=
broken=
pid=
for number in HUP:129 INT:130 TERM:143; do
    trap "pass_on ${number%:*} ${number#*:}" "${number%:*}"
done

case $(readlink /proc/self/fd/0) in
/dev/null | /dev/pts/* | /dev/console | '') input=0 ;;
*) input=1 ;;
esac
if [ "$input" = 1 ]; then
    exec 3<&0 </dev/null
fi
order "$@" | (stream --data-binary @- "$here/run" 3<&-) &
run=$!
(stream "$here/stderr" 3<&- >&2) &
err=$!
streams="$run $err"
if [ "$input" = 1 ]; then
    (stream --upload-file - "$here/stdin" <&3 >/dev/null) &
    streams="$streams $!"
fi
exec 3<&-
while pid=$(ask --fail --retry 5 --retry-connrefused "$here/pid") && [ -z "$pid" ]; do
    :
done

finish "$run"
if [ "$ended" = 23 ]; then # nobody reads what the command says
    cut
    exit 141
fi
# above 128 is a signal to this program, which curl has not seen
if [ "$ended" -gt 0 ] && [ "$ended" -lt 128 ]; then
    cut
fi
finish "$err"
[ -z "$broken" ] || exit "$broken"
answer=$(ask --retry 5 --retry-connrefused "$here/exit") || answer=
cut
case $answer in
[0-9]*) ;;
*) lost ;;
esac
[ -z "${answer#* }" ] || say "${answer#* }"
exit "${answer%% *}"
