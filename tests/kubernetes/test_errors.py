"""Every recorded refusal, and whose fault it is."""

import pytest

from backends import api
from backends.kubernetes import errors
from tests.kubernetes import recorded

HINT = "; hint: the rights in docs/backends/kubernetes.md"
NOBODY = "system:serviceaccount:broker-system:nobody may not"

# recording: verb, what, class, how the reason begins
TABLE: dict[str, tuple[str, str, type[api.BackendError], str]] = {
    "400-bad-quantity": ("create", "pods", api.Rejected, "cannot create pods: Pod in version"),
    "400-log-container-required": ("get", "pods/log", api.Rejected, "cannot get pods/log: a con"),
    "400-log-no-such-container": ("get", "pods/log", api.Rejected, "cannot get pods/log: conta"),
    "400-log-previous": ("get", "pods/log", api.Rejected, "cannot get pods/log: previous"),
    "400-malformed-json": ("create", "pods", api.Rejected, "cannot create pods: the object"),
    "400-namespace-mismatch": ("create", "pods", api.Rejected, "cannot create pods: the names"),
    "400-unknown-field-strict": ("create", "pods", api.Rejected, "cannot create pods: Pod in"),
    "400-wrong-type": ("create", "pods", api.Rejected, "cannot create pods: Pod in version"),
    "401-bad-token-watch": ("watch", "pods", api.Unauthorized, "the API server does not accept"),
    "401-bad-token": ("list", "pods", api.Unauthorized, "the API server does not accept our"),
    "403-anonymous": (
        "list",
        "pods",
        errors.NoRight,
        "system:anonymous may not list pods in namespace agents",
    ),
    "403-limitrange": ("create", "pods", api.Rejected, 'pods "agent-x" is forbidden: maximum mem'),
    "403-namespace-terminating": ("create", "pods", api.Unauthorized, 'pods "agent-x" is forb'),
    "403-pod-security": ("create", "pods", api.Rejected, 'pods "agent-x" is forbidden: violates'),
    "403-priorityclass-missing": (
        "create",
        "pods",
        api.Rejected,
        'pods "agent-x" is forbidden: n',
    ),
    "403-quota-memory": (
        "create",
        "pods",
        api.NoCapacity,
        "quota agents is used up: requested: requests.memory=2Gi, used: requests.memory=0, limi",
    ),
    "403-quota-must-specify": ("create", "pods", api.Rejected, 'pods "agent-q3" is forbidden: fa'),
    "403-quota-pods": ("create", "pods", api.NoCapacity, "quota agents is used up: requested: p"),
    "403-rbac-create": (
        "create",
        "pods",
        errors.NoRight,
        f"{NOBODY} create pods in namespace agents{HINT}",
    ),
    "403-rbac-delete": ("delete", "pods", errors.NoRight, f"{NOBODY} delete pods"),
    "403-rbac-list": ("list", "pods", errors.NoRight, f"{NOBODY} list pods"),
    "403-rbac-log": ("get", "pods/log", errors.NoRight, f"{NOBODY} get pods/log"),
    "403-rbac-watch": ("watch", "pods", errors.NoRight, f"{NOBODY} watch pods"),
    "403-serviceaccount-missing": ("create", "pods", api.Rejected, 'pods "agent-x" is forbidden:'),
    "404-namespace": ("create", "pods", api.Unauthorized, 'namespaces "absent" not found; hint:'),
    "404-pod-delete": ("delete", "pods", api.NotFound, 'pods "absent" not found'),
    "404-pod-get": ("get", "pods/log", api.NotFound, 'pods "absent" not found'),
    "409-already-exists": ("create", "pods", api.AlreadyExists, 'pods "agent-dup" already exists'),
    "409-delete-rv-precondition": ("delete", "pods", api.NotFound, "Operation cannot be"),
    "409-delete-uid-precondition": ("delete", "pods", api.NotFound, "Operation cannot be"),
    "409-secret-exists": ("create", "secrets", api.AlreadyExists, 'secrets "agent-two" already'),
    "409-update-conflict": ("update", "pods", errors.Outdated, "Operation cannot be fulfilled"),
    "410-list-continue-expired": ("list", "pods", errors.Expired, "The provided continue param"),
    "410-list-exact": ("list", "pods", errors.Expired, "The resourceVersion for the provided"),
    "413-too-large": ("create", "pods", api.Rejected, "cannot create pods: Request entity too"),
    "415-media-type": ("create", "pods", api.Rejected, "cannot create pods: the body of the"),
    "422-admission-policy": ("create", "pods", api.Rejected, 'cannot create pods: pods "agent-de'),
    "422-annotations-too-long": ("create", "pods", api.Rejected, "cannot create pods: Pod"),
    "422-invalid-name": ("create", "pods", api.Rejected, 'cannot create pods: Pod "Agent_X"'),
    "422-label-value": ("create", "pods", api.Rejected, 'cannot create pods: Pod "agent-x" is'),
    "422-limits-below-requests": ("create", "pods", api.Rejected, "cannot create pods: Pod"),
    "422-many": ("create", "pods", api.Rejected, "cannot create pods: Pod"),
    "422-no-containers": ("create", "pods", api.Rejected, "cannot create pods: Pod"),
    "429-eviction-pdb": (
        "create",
        "pods",
        api.Unavailable,
        "the API server is busy: Cannot evict",
    ),
    "429-flowcontrol-create": (
        "create",
        "pods",
        api.Unavailable,
        "the API server is busy: Too ma",
    ),
    "429-flowcontrol-list": ("list", "pods", api.Unavailable, "the API server is busy: Too many"),
    "429-flowcontrol-watch": ("watch", "pods", api.Unavailable, "the API server is busy: Too m"),
    "500-bad-resource-version": ("watch", "pods", api.Unavailable, "the API server fails (500):"),
    "500-webhook-down": (
        "create",
        "pods",
        api.Unavailable,
        "the API server fails (500): Internal",
    ),
    "500-webhook-timeout": ("create", "pods", api.Unavailable, "the API server fails (500): Inte"),
    "504-too-large-resource-version": ("list", "pods", api.Unavailable, "the API server fails ("),
}
SINGLE = [n for n in recorded.names("error-") if "response" in recorded.load(n)]


def answer(response: dict) -> errors.Answer:
    return errors.Answer(
        status=response["status"], body=response["body"], headers=response["headers"]
    )


@pytest.mark.parametrize("name", [n for n in SINGLE if "container-creating" not in n])
def test_recorded_refusals(name: str) -> None:
    """One class each, with the server's words, at most 256 characters of them."""
    verb, what, cls, words = TABLE[name.removeprefix("error-")]

    error = errors.mapped(verb, what, answer(recorded.load(name)["response"]))

    assert cls is type(error)
    assert error.reason.startswith(words), error.reason
    assert len(error.reason) <= 256


@pytest.mark.parametrize("name", ["error-500-storage-down", "error-504-storage-hangs"])
def test_a_server_without_its_storage_is_unavailable(name: str) -> None:
    """Whatever is asked of it; what it answered before and after is its own matter."""
    failed = [r["response"] for r in recorded.load(name)["requests"] if "response" in r]
    failed = [r for r in failed if r["status"] >= 500]

    assert failed
    for response in failed:
        assert api.Unavailable is type(errors.mapped("create", "pods", answer(response)))


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("error-429-flowcontrol-list", 2.0), ("error-504-too-large", 1.0), ("error-500-web", None)],
)
def test_the_server_says_when_to_ask_again(name: str, seconds: float | None) -> None:
    """By a header, or in its answer."""
    names = recorded.names(name)
    told = answer(recorded.load(names[0])["response"])

    assert seconds == errors.mapped("list", "pods", told).retry_after


def test_a_secret_in_the_server_s_words_is_blanked_out() -> None:
    """An API server may quote what it could not read."""
    told = errors.Answer(status=422, body={"message": 'invalid value "hunter2": too short'})

    error = errors.mapped("create", "secrets", told, hide=["hunter2"])

    assert "hunter2" not in error.reason
    assert "***" in error.reason


def test_a_redirect_is_no_answer() -> None:
    """Somebody's login page stands where the API server should."""
    error = errors.mapped("list", "pods", errors.Answer(status=302))

    assert "correct `server`" in error.reason
