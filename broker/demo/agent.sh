#!/bin/sh
# The stand-in agent for places without Python: needs sh and curl (or wget).
# Same environment and exit codes as agent.py.
url="${JENKINS_URL%/}/simulated-agent/$JENKINS_AGENT_NAME"
secret=$(cat "$JENKINS_SECRET_FILE") || exit 255
tries=240
while [ "$tries" -gt 0 ]; do
    if command -v curl >/dev/null 2>&1; then
        # the secret goes in by standard input, not by the command line
        said=$(printf 'header = "X-Agent-Secret: %s"\n' "$secret" | curl -sN --config - -w '\nstatus %{http_code}\n' "$url")
    else
        said=$(wget -qSO- --header "X-Agent-Secret: $secret" "$url" 2>&1 | sed 's/^ *HTTP[^ ]* /status /')
    fi
    case $said in
    *"gone deleted"*) echo "the node was deleted"; exit 0 ;;
    *"status 403"* | *"status 404"*) echo "refused"; exit 255 ;;
    *connected*) tries=240 ;;
    esac
    tries=$((tries - 1))
    sleep 0.25
done
echo "the controller stays away"
exit 1
