"""What the engine says and whose fault it is, by the recordings of a real one."""

import pytest

from backends import api
from backends.docker.engine import answers
from tests.docker import recorded

ERRORS = recorded.load("errors")
WHOSE = {
    "404_image": api.Unavailable,  # the client looks for it first, see below
    "404_container_inspect": api.NotFound,
    "404_container_start": api.NotFound,
    "409_name_conflict": api.Rejected,  # the client makes NameTakenError of it
    "409_remove_running": api.Rejected,
    "409_kill_not_running": api.Rejected,
    "400_name_invalid": api.Rejected,
    "400_memory_too_small": api.Rejected,
    "500_bad_json_type": api.Rejected,
    "400_no_command_or_bad_config": api.Rejected,
    "400_cpu_too_many": api.Rejected,
    "400_bind_source_missing": api.Rejected,
    "400_api_version_too_new": api.Unauthorized,
    "400_start_command_not_found": api.Rejected,
    "500_start_privileged_refused_here": api.Rejected,
    "404_start_network_missing": api.Rejected,
    "500_start_volume_mount_fails": api.Rejected,
    "500_pull_no_registry": api.Unavailable,
    "500_pull_refused": api.Unavailable,
    "400_runtime_unknown": api.Rejected,
    "503_service_not_in_swarm": api.Unavailable,
    "404_volume_driver": api.Rejected,
    "500_start_port_allocated": api.NoCapacity,
}


def test_every_recorded_refusal_has_its_case():
    """None is forgotten when a recording is added."""
    refused = {case for case, told in ERRORS.items() if told["status"] >= 400}
    assert set(WHOSE) == refused


@pytest.mark.parametrize("case", WHOSE)
def test_a_refusal_is_mapped_with_the_engines_words(case):
    """As the call that got it maps it."""
    told = ERRORS[case]
    words = told["body"]["message"]
    if "_start_" in case or case == "404_container_start":
        error = answers.refused_launch(told["status"], words, container_id="nosuch")
    elif "_pull_" in case:
        error = answers.refused_pull(told["status"], words)
    else:
        error = answers.refusal(told["status"], words)
    assert WHOSE[case] is type(error)
    assert words[:60] in error.reason


def test_a_missing_image_is_known_from_a_missing_container():
    """Only the first is worth a pull."""
    found = {
        case
        for case in WHOSE
        if answers.is_missing_image(ERRORS[case]["status"], ERRORS[case]["body"]["message"])
    }
    assert {"404_image"} == found


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("pull access denied for x, repository does not exist or may require 'docker login'",
         api.Rejected),
        ("manifest for busybox:9 not found: manifest unknown", api.Rejected),
        ("unauthorized: authentication required", api.Unauthorized),
        ("toomanyrequests: You have reached your pull rate limit", api.Unavailable),
        ("write /var/lib/docker/tmp/x: no space left on device", api.Unavailable),
    ],
)  # fmt: skip
def test_what_a_registry_says(words, kind):
    """The engine passes the registry's words on, and hides its status."""
    assert kind is type(answers.refused_pull(None, words))


def test_a_listing_is_read():
    """Names are not needed: whose a container is stands in its labels."""
    (entry,) = recorded.load("list-by-label")["body"]
    found = answers.listed(entry)
    assert ({"broker.agent": "ls1"}, "running", 1795477184.0, ()) == (
        found.labels, found.state, found.created_at, found.ports
    )  # fmt: skip


def test_published_ports_are_told_once():
    """The engine lists one per address family."""
    port = {"PrivatePort": 80, "PublicPort": 32768, "Type": "tcp"}
    ports = [{**port, "IP": "0.0.0.0"}, {**port, "IP": "::"}, {"PrivatePort": 81, "Type": "tcp"}]
    assert (api.Port(port=80, host_port=32768),) == answers.listed(
        {"Id": "x", "Ports": ports}
    ).ports


def test_the_engines_time_is_read_and_year_one_is_never():
    """Nanoseconds and both ways to write a zone."""
    shown = answers.inspected(recorded.load("container-exit3")["inspect_exited"]["body"])
    assert shown.started
    assert 1795477000 < shown.finished_at < 1795478000
    assert 0 < shown.finished_at % 1
    created = recorded.load("container-exit3")["inspect_created"]["body"]
    assert (False, None) == (
        answers.inspected(created).started, answers.inspected(created).finished_at
    )  # fmt: skip


def test_published_ports_are_those_of_ipv4_where_there_are_any():
    """An engine may choose another random port for IPv6; both would be read as two ports."""
    told = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 32774, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 32775, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
        {"PrivatePort": 22, "Type": "tcp"},
    ]
    found = answers.listed({"Id": "x", "Ports": told})
    assert (
        api.Port(port=53, host_port=53, protocol="udp"),
        api.Port(port=80, host_port=32774),
    ) == found.ports


def test_a_published_port_is_told_with_the_address_that_it_is_bound_to():
    """One of two addresses is two ports; what cannot be a port, or an address, is left out."""
    told = [
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 32774, "Type": "tcp"},
        {"IP": "0:0::1", "PrivatePort": 80, "PublicPort": 32775, "Type": "tcp"},
        {"IP": "<b>", "PrivatePort": 81, "PublicPort": 1, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 70000, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": True, "PublicPort": 1, "Type": "tcp"},
        "no port",
    ]
    assert (
        api.Port(port=80, host_port=32774, address="127.0.0.1"),
        api.Port(port=80, host_port=32775, address="::1"),
        api.Port(port=81, host_port=1),
    ) == answers.listed({"Id": "x", "Ports": told}).ports
