#!/bin/sh
# in-container NAME COMMAND [ARGUMENT...]
# Runs a command in another container of this pod, in this directory and with this build's variables.
# Ends as the command ends. Of its own: 125 it could not be run, 127 there is no curl or no shell.
# The broker starts the command, and is not needed after that: what it reads and says, signals and
# the exit code go through named pipes in a folder that the containers of the pod share.
api='@URL@'
told='@SETTINGS@'
shared='@SHARED@'
patience_s=300 # without an answer of the broker

say() {
    printf 'in-container: %s\n' "$*" >&2
}

leave() {
    [ -z "$feeding" ] || kill -USR1 "$feeding" 2>/dev/null
    kill -KILL $streams 2>/dev/null
    rm -rf "$folder" "$own"
    exit "$1"
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

# A signal to this program goes to the command, if there is one.
pass_on() {
    if [ -z "$started" ]; then
        say "a signal came"
        leave 125
    fi
    echo "$1" >&4
}

order() {
    printf '%s\0' "$container" "$PWD" "$input" "$#" "$@"
    cat /proc/1/environ 2>/dev/null # what this container had before any build
    printf '\0'
    cat "/proc/$$/environ"
}

# Writes the last line of the answer down: a code and words, or that the command runs. What a proxy
# says in the broker's place is none of these: it is asked again.
read_answer() {
    while read -r code words; do
        case $code in
        wait) say "waiting: $words" ;;
        again) echo "$words" >"$own/why" ;;
        started | 125 | 127) echo "$code $words" >"$own/answer" ;;
        esac
    done
}

# An order that is given again, because nobody heard whether it arrived, is carried out once.
begin() {
    until=$(($(date +%s) + patience_s))
    told_so=
    while :; do
        read_answer <"$own/answers" 3<&- 4>&- 5>&- 6>&- 7>&- 8>&- &
        reading=$!
        order "$@" | (exec curl -q --config "$told" --data-binary @- "$here") \
            >"$own/answers" 3<&- 4>&- 5>&- 6>&- 7>&- 8>&- &
        streams="$! $reading"
        finish "$!"
        asked=$ended
        finish "$reading"
        streams=
        if [ -e "$own/answer" ]; then
            read -r code words <"$own/answer"
            return
        fi
        code=125 words="the broker at $api does not answer"
        [ ! -e "$own/why" ] || read -r words <"$own/why"
        case $asked in
        51 | 60 | 77) # time does not mend that
            words="the certificate of the broker at $api is not trusted (curl: $asked)"
            return
            ;;
        esac
        left_s=$((until - $(date +%s)))
        [ $left_s -gt 0 ] || return
        if [ -z "$told_so" ] && [ $((patience_s - left_s)) -ge 5 ]; then
            say "waiting: $words"
            told_so=1
        fi
        sleep 1
    done
}

# What streams is not to die of the signal that the command is to get: its last words count.
stream() {
    trap '' HUP INT TERM
    exec cat
}

# Gives the command its input, and says that this was all; what breaks off was not.
feed() {
    trap '' HUP INT TERM
    trap 'kill -KILL $cat 2>/dev/null; exit' USR1
    LC_ALL=C cat <&3 >&8 2>"$own/fed" 4>&- &
    cat=$!
    exec 3<&- 8>&-
    wait $cat 2>/dev/null
    fed=$?
    if [ $fed = 0 ]; then
        echo EOF >&4
    elif [ $fed != 141 ] && ! grep -q 'Broken pipe' "$own/fed"; then
        : >"$own/cut"
        echo CUT >&4
    fi
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
started=
streams=
feeding=
case $(readlink /proc/self/fd/0) in
/dev/null | /dev/pts/* | /dev/console | '') input=0 ;;
*) input=1 ;;
esac
if [ "$input" = 1 ]; then
    exec 3<&0 </dev/null
fi
folder=$shared/$(cat /proc/sys/kernel/random/uuid)
here=$api/${folder##*/}
own=$(mktemp -d) || { # for what no other container is to touch
    say "no folder for temporary files can be made; hint: a volume at /tmp, or TMPDIR"
    exit 125
}
for number in HUP:129 INT:130 TERM:143; do
    trap "pass_on ${number%:*}" "${number%:*}"
done
if ! mkfifo "$own/answers" || ! mkdir "$folder" ||
    ! (cd "$folder" && mkfifo -m 666 orders out err end in); then
    say "cannot make pipes in $own and $shared"
    leave 125
fi
# open for both directions: nobody has to wait for the other side; which may be another user
exec 4<>"$folder/orders" 5<>"$folder/out" 6<>"$folder/err" 7<>"$folder/end" 8<>"$folder/in"
chmod 777 "$folder"

begin "$@"
if [ "$code" != started ]; then
    [ -z "$words" ] || say "$words"
    leave "$code"
fi
started=1
# each pipe for one direction: that the other side has closed it is to be seen
pipes=/proc/self/fd # by name they might be others by now
exec 9<$pipes/5 5<&9 9<$pipes/6 6<&9 9<$pipes/7 7<&9 9>$pipes/8 8>&9 9>&-
stream <&5 3<&- 4>&- 6<&- 7<&- 8>&- &
out=$!
stream <&6 >&2 3<&- 4>&- 5<&- 7<&- 8>&- &
err=$!
stream <&7 >"$own/code" 3<&- 4>&- 5<&- 6<&- 8>&- &
end=$!
streams="$out $err $end"
if [ "$input" = 1 ]; then
    feed 5<&- 6<&- 7<&- &
    feeding=$!
fi
exec 3<&- 5<&- 6<&- 7<&- 8>&-

finish "$end"
# what the command left behind may keep its output open: nobody waits long for that, but for a slow
# reader as long as it takes
waited=0
while [ $waited -lt 500 ] && { kill -0 "$out" || kill -0 "$err"; } 2>/dev/null; do
    case $(cat "/proc/$out/wchan" "/proc/$err/wchan" 2>/dev/null) in
    *write* | *send* | *memory*) waited=0 ;;
    *) waited=$((waited + 1)) ;;
    esac
    sleep 0.02 2>/dev/null || sleep 1
done
if [ -e "$own/cut" ]; then
    say "the input broke off; the command was ended"
    leave 125
fi
read -r code <"$own/code" && leave "$code"
words=$(curl -q --config "$told" --fail --max-time 20 "$here/end?container=$container") || words=
say "${words:-"container $container, or what was started there, is gone"}"
leave 125
