"""The hook's text, for ``init.groovy.d`` and the script console, and whether it is there.

Pure but for the file that is shipped. Refuses to know how a script comes to the controller.
"""

import importlib.resources

from broker.hook import messages

KEY_VARIABLE = "AGENT_BROKER_HOOK_KEY"
KEY_FILE = "agent-broker-hook.key"
"""Where a script without the key finds it: the controller's environment, or its home directory."""
_INSTALLED = "agent-broker hook"
_REMOVED = "agent-broker hooks removed: "

_REMOVE = """\
// Takes the push hook of @OWNER@ out of this controller.
int removed = 0
for (listener in new ArrayList(hudson.model.queue.QueueListener.all())) {
    if (listener.class.name == 'AgentBrokerHook' && listener.owner == '@OWNER@') {
        listener.close()
        removed++
    }
}
return '@REMOVED@' + removed
"""
_FOUND_KEY = f"""\
def key = System.getenv('{KEY_VARIABLE}')
def file = new File(Jenkins.get().rootDir, '{KEY_FILE}')
if (!key && file.isFile()) key = file.text.trim()
if (!key) {{
    AgentBrokerHook.LOG.warning('no key: set {KEY_VARIABLE}, or write it to ' + file)
    return 'no key: set {KEY_VARIABLE}, or write it to ' + file
}}
"""


def install(owner: str, url: str, *, key: str | None = None) -> str:
    """Return the script that puts the hook in; ``url`` is that of the broker's page.

    ``key`` None: it is looked for on the controller. With it the script is a secret.
    """
    address = f"{url}api/v1/hook"
    begin = _FOUND_KEY if key is None else f"def key = {_quoted(key)}\n"
    begin += f"return AgentBrokerHook.install({_quoted(owner)}, {_quoted(address)}, key)"
    text = (importlib.resources.files(__package__ or "broker.hook") / "hook.groovy").read_text()
    for name, value in (
        ("OWNER", owner),
        ("VERSION", str(messages.VERSION)),
        ("URL", _in_comment(address)),
        ("INSTALL", begin),
    ):
        text = text.replace(f"@{name}@", value)
    return text


def remove(owner: str) -> str:
    """Return the script that takes it out."""
    return _REMOVE.replace("@OWNER@", owner).replace("@REMOVED@", _REMOVED)


def is_installed(answer: str) -> bool:
    """Whether the console's answer says so."""
    return _INSTALLED in answer and "is installed" in answer


def removed(answer: str) -> int | None:
    """How many the console's answer says that were taken out; None: it says something else."""
    _, found, count = answer.partition(_REMOVED)
    digits = count.strip()[:4]
    return int(digits) if found and digits.isascii() and digits.isdecimal() else None


def _quoted(text: str) -> str:
    """Return a text as Groovy has it, in single quotes, where nothing is put in."""
    inner = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{inner}'"


def _in_comment(text: str) -> str:
    return " ".join(text.split())
