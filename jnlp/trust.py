"""Which authorities an agent is to trust besides those of its Java: a PEM text becomes options.

Pure. Refuses to read files and to judge certificates: whether they are any good is the agent's to
find out.

Facts (``hudson/remoting/Launcher.java`` and ``jnlp/Main.java``, remoting 3.40 to 3355): ``-cert``
takes a PEM text, or ``@FILE``. The second form cannot be reached from a command line: the option
parser replaces each argument that begins with ``@`` by the lines of the file, and the agent ends
with its usage (tried with 3309). One option is one certificate, the first of its text. Together
with ``-webSocket`` it is refused before 3184 (remoting #690). The agent then trusts these alone
when it asks the controller; builds' own connections are not affected.
"""

import re

_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
MOST = 16
"""A private authority with its intermediates; the whole world's do not fit a command line."""


def certificates(pem: str) -> tuple[str, ...]:
    """Return the certificates in a PEM text, each as it stands in the agent's command line.

    Raises ValueError if there is none.
    """
    found = tuple(_CERTIFICATE.findall(pem.replace("\r", "")))
    if not found:
        raise ValueError("it holds no certificate; PEM with BEGIN CERTIFICATE lines is expected")
    return found
