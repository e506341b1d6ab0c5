"""Every recorded refusal, and whose fault it is."""

import pytest

from backends import api
from backends.kubernetes.api import client, errors, throttling
from tests.each import each
from tests.kubernetes import fake, recorded, test_backend

HINT = "; hint: the rights in docs/backends/kubernetes.md"
NOBODY = "system:serviceaccount:broker-system:nobody is not allowed to"

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
        "system:anonymous is not allowed to list pods in namespace agents",
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
    "403-rbac-patch": (
        "patch",
        "pods",
        errors.NoRight,
        "system:serviceaccount:agents:default is not allowed to patch pods",
    ),
    "404-pod-patch": ("patch", "pods", api.NotFound, 'pods "absent" not found'),
    "415-patch": ("patch", "pods", api.Rejected, "cannot patch pods: "),
    "422-patch-uid": ("patch", "pods", api.Rejected, "cannot patch pods: "),
    "404-pod-get": ("get", "pods/log", api.NotFound, 'pods "absent" not found'),
    "406-not-acceptable": ("list", "pods", api.Rejected, "cannot list pods: 406: Not Acceptable"),
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
    "422-immutable-update": ("update", "pods", api.Rejected, "cannot update pods: Pod"),
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
REACHES = {  # where a class alone does not tell
    "403-quota-pods": api.Reach.BACKEND,
    "500-webhook-down": api.Reach.TEMPLATE,
    "500-webhook-timeout": api.Reach.TEMPLATE,
}
SINGLE = [n for n in recorded.names("error-") if "response" in recorded.load(n)]


def answer(response: dict) -> errors.ErrorAnswer:
    return errors.ErrorAnswer(
        status=response["status"], body=response["body"], headers=response["headers"]
    )


@each("name", [n for n in SINGLE if "container-creating" not in n])
def test_recorded_refusals(name: str) -> None:
    """One class each, with the server's words, at most 256 characters of them."""
    verb, what, cls, words = TABLE[name.removeprefix("error-")]

    error = errors.mapped(verb, what, answer(recorded.load(name)["response"]))

    assert cls is type(error)
    assert error.reason.startswith(words), error.reason
    assert len(error.reason) <= 256
    assert error.reach is REACHES.get(name.removeprefix("error-"), cls.usual)


@each("name", TABLE)
def test_what_the_contract_lets_out_reaches_as_far(name: str) -> None:
    """Our finer classes are not the contract's, and lose nothing on the way."""
    verb, what, _, _ = TABLE[name]
    error = errors.mapped(verb, what, answer(recorded.load(f"error-{name}")["response"]))
    with pytest.raises(api.BackendError) as caught, errors.contract():
        raise error
    assert caught.value.reach is error.reach
    assert type(caught.value).__module__ == "backends.api"


def test_a_template_that_is_refused_is_nobody_elses_trouble() -> None:
    """Whatever an API server says about what a pod is made of; a right or a token is everybody's."""
    own = {
        name
        for name, (verb, what, _, _) in TABLE.items()
        if (verb, what) == ("create", "pods")
        and errors.mapped(verb, what, answer(recorded.load(f"error-{name}")["response"])).reach
        is not api.Reach.BACKEND
    }
    everybody = {"403-namespace-terminating", "403-quota-pods", "403-rbac-create", "404-namespace"}
    busy = {"429-eviction-pdb", "429-flowcontrol-create"}
    created = {n for n, (verb, what, _, _) in TABLE.items() if (verb, what) == ("create", "pods")}
    assert created - own == everybody | busy


def test_two_writers_under_one_quota_cost_one_launch() -> None:
    """409 without AlreadyExists: somebody else changed what was read."""
    words = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
    told = errors.ErrorAnswer(status=409, body={"message": words, "reason": "Conflict"})
    error = errors.mapped("create", "pods", told)
    assert (api.Unavailable, api.Reach.LAUNCH) == (type(error), error.reach)


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
    told = errors.ErrorAnswer(status=422, body={"message": 'invalid value "hunter2": too short'})

    error = errors.mapped("create", "secrets", told, hide=["hunter2"])

    assert "hunter2" not in error.reason
    assert "(hidden)" in error.reason


def test_a_redirect_is_no_answer() -> None:
    """Somebody's login page stands where the API server should."""
    error = errors.mapped("list", "pods", errors.ErrorAnswer(status=302))

    assert "correct `server`" in error.reason


def test_a_server_s_wish_counts_for_its_priority_level() -> None:
    """Lists and creations share a level; leases have another, and others are not known yet."""
    told = answer(recorded.load("error-429-flowcontrol-list")["response"])
    level = told.headers["X-Kubernetes-Pf-Prioritylevel-Uid"]
    shared = throttling.Throttle()
    shared.learn(("create", "pods"), {"X-Kubernetes-Pf-Prioritylevel-Uid": level}, None, now=0.0)
    shared.learn(("update", "leases"), {"X-Kubernetes-Pf-Prioritylevel-Uid": "x"}, None, now=0.0)
    shared.learn(("list", "pods"), told.headers, told.retry_after, now=10.0)

    assert [1.5, 1.5, 0.0, 0.0] == [
        shared.wait_s(sort, now=10.5)
        for sort in (("list", "pods"), ("create", "pods"), ("update", "leases"), ("get", "logs"))
    ]
    assert 0.0 == shared.wait_s(("list", "pods"), now=12.0)


def test_without_a_level_each_sort_of_request_counts_for_itself() -> None:
    """As behind a proxy that answers 429 itself."""
    alone = throttling.Throttle()
    alone.learn(("list", "pods"), {}, 5.0, now=0.0)

    assert 5.0 == alone.wait_s(("list", "pods"), now=0.0)
    assert 0.0 == alone.wait_s(("create", "pods"), now=0.0)


async def test_who_was_asked_to_wait_does_not_ask(
    cluster: fake.Cluster, make: test_backend.Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request until ``Retry-After`` is over; what has another level goes on."""
    now = [100.0]
    monkeypatch.setattr(client, "_clock", lambda: lambda: now[0])
    cluster.fail("list", "error-429-flowcontrol-list")
    ours = make()
    for waited, left in ((0.0, 2.0), (0.5, 1.5), (1.9, 0.1)):
        now[0] = 100.0 + waited
        with pytest.raises(api.Unavailable) as raised:
            await ours.list()
        assert left == pytest.approx(raised.value.retry_after)
    assert ["list"] == cluster.verbs()
    await ours.launch(test_backend.spec())
    now[0] = 102.1

    assert ["a1"] == [one.name for one in await ours.list()]


@pytest.mark.parametrize(
    ("recording", "slug"),
    [
        ("error-403-quota-pods", "no-capacity"),
        ("error-403-rbac-create", "unauthorized"),
        ("error-403-pod-security", "rejected"),
        ("error-422-admission-policy", "rejected"),
        ("error-422-many", "rejected"),
        ("error-429-flowcontrol-create", "unavailable"),
        ("error-500-webhook-down", "unavailable"),
        ("error-504-too-large-resource-version", "unavailable"),
    ],
)
async def test_a_refused_launch_leaves_nothing(
    cluster: fake.Cluster, make: test_backend.Make, recording: str, slug: str
) -> None:
    """Whatever the API server has against it, with the reaction that the issue asks for."""
    cluster.fail("create", recording)
    with pytest.raises(api.BackendError) as raised:
        await make().launch(test_backend.spec())

    assert slug == raised.value.slug
    assert ({}, {}) == (cluster.pods, cluster.secrets)
