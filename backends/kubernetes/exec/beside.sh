# Runs in the other container, as `sh -c`: starts the command of an order, which is one line of its
# input, and leaves. From then on the two containers are among themselves: the command's streams, its
# signals and its exit code go through named pipes in a folder that both have.
IFS= read -r _ic_line || exit 125
eval "$_ic_line" # the folder, the directory, the build's variables, the command
unset _ic_line _ic_text
if ! [ -d "$_ic_folder" ]; then
    echo gone
    exit
fi
# an order that is given twice, because nobody heard whether it arrived, is carried out once
if ! (set -C && : >"$_ic_folder/taken") 2>/dev/null; then
    echo started
    exit
fi
# each pipe is opened for both directions first, which never waits for another side
exec 6<>"$_ic_folder/orders" 7<"$_ic_folder/orders"
exec 6<>"$_ic_folder/out" 3>"$_ic_folder/out"
exec 6<>"$_ic_folder/err" 4>"$_ic_folder/err"
exec 6<>"$_ic_folder/end" 9>"$_ic_folder/end"
if [ "$_ic_input" = 1 ]; then
    exec 6<>"$_ic_folder/in" 5<"$_ic_folder/in" 8>"$_ic_folder/in"
else
    exec 5</dev/null 8>/dev/null
fi
exec 6>&-

# Reads what the agent's side writes, until nobody is there any more; then the command has to end.
attend() {
    trap '' HUP INT TERM
    exec 3>&- 4>&- 5<&- 9>&-
    while IFS= read -r _ic_word <&7; do
        case $_ic_word in
        EOF) exec 8>/dev/null ;;
        CUT) break ;;
        HUP | INT | TERM) kill -"$_ic_word" -$$ ;;
        esac
    done
    rm -rf "$_ic_folder" # now: the end of the command is the end of this, too
    kill -TERM -$$
    _ic_waited=0
    while [ $_ic_waited -lt 10 ] && sleep 1; do
        _ic_waited=$((_ic_waited + 1))
    done
    kill -KILL -$$
}

# Not in the background, where a shell has the interrupt ignored for good; so it is the shell that
# was asked which goes, and whoever has asked is free. All that is left is of its process group.
(
    trap : HUP INT TERM
    echo started
    exec </dev/null >/dev/null 2>&1
    kill -KILL $$
    attend &
    exec 7<&- 8>&-
    (exec "$@" 3>&- 4>&- 5<&- 9>&-) <&5 >&3 2>&4
    _ic_code=$?
    kill -KILL $!
    wait $!
    trap '' PIPE
    echo $_ic_code >&9 || rm -rf "$_ic_folder" # nobody is there to do it
)
: # else a shell may take itself for the one in parentheses
