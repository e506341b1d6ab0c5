"""Which images a pattern lets in, and what it was never written for."""

import attrs
import pytest

from broker.core import model
from broker.core.demand import images, parameters

DIGEST = "@sha256:" + "0123abcd" * 8


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        ("golang:*", "golang:1.22"),
        ("golang", "golang"),
        ("golang:1.2?", "golang:1.22"),
        ("golang:*@*", f"golang:1.22{DIGEST}"),
        ("golang@sha256:*", f"golang{DIGEST}"),
        ("team/*", "team/app:1"),
        ("team/*", f"team/app:1{DIGEST}"),
        ("*", "golang:1.22"),
        ("registry.example.com/team/*", "registry.example.com/team/app:1"),
        ("registry.example.com:5000/**", "registry.example.com:5000/a/b/c"),
        ("localhost/team/*", "localhost/team/app"),
        ("*.example.com/team/*", "eu.example.com/team/app:1"),
        ("**", f"evil.example:5000/a/b:1{DIGEST}"),
        ("**/golang:1", "mirror.example.com/library/golang:1"),
    ],
)
def test_a_pattern_stands_for_an_image(pattern, image):
    """Part by part; a path that ends in a wildcard and says no tag stands for all of them."""
    assert images.is_allowed([pattern], image)


@pytest.mark.parametrize(
    ("pattern", "image"),
    [
        ("golang:*", "golang"),
        ("golang", "golang:1.22"),
        ("golang:*", f"golang:1.22{DIGEST}"),
        ("golang:*", "golang:5000/app"),
        ("golang:*", "evil.example/golang:1"),
        ("golang:*", "golang:1.22:evil"),
        ("golang:*", "golang:../x"),
        ("golang*", "golang.evil.example/app"),
        ("team*/app", "team.evil.example/app"),
        ("team*/*", "team:5000/app"),
        ("*/app", "evil.example/app"),
        ("*/app", "localhost/app"),
        ("*/app", "EVIL/app"),
        ("?vil/app", "Evil/app"),
        ("*", "evil.example/app"),
        ("registry.example.com/*", "registry.example.com.evil.example/app"),
        ("registry.example.com/team/*", "registry.example.com/team/../other/app"),
        ("registry.example.com/team/*", "registry.example.com/team/a/b"),
        ("registry.example.com/team/*", "registry.example.com:5000/team/a"),
        ("registry.example.com/**", "evil.example/registry.example.com/a"),
        ("**", "../../etc"),
        ("**", "golang:1 --privileged"),
        ("**", "golang:1\n"),
        ("**", "golängö"),
        ("**", "a" * 256),
        ("**", ""),
        ("**", "**"),
        ("**", "golang:${TAG}"),
        ("*", "0123abcd" * 8),
        ("*", "0123abcd" * 8 + ":latest"),
        ("*:*", "sha256:" + "0123abcd" * 8),
    ],
)
def test_no_wildcard_lets_in_what_it_was_not_written_for(pattern, image):
    """Other registries, digests, folders above, and what is no image at all."""
    assert not images.is_allowed([pattern], image)


@pytest.mark.parametrize(
    ("value", "image"),
    [
        ("abc123", "abc123:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("abc123:1", "abc123:1"),
        (f"abc123{DIGEST}", f"abc123{DIGEST}"),
    ],
)
def test_an_image_that_is_asked_for_has_a_tag(value, image):
    """Without one an engine takes it for the beginning of an image's ID, of any registry."""
    anything = model.Parameter(kind=model.ParameterKind.IMAGE, allow=("**",))
    part = attrs.evolve(anything, stands_for="team/{value}")
    assert image == parameters.choice(anything, value).image
    assert "team/abc123:latest" == parameters.choice(part, "abc123").image


def test_an_odd_name_costs_little():
    """Whoever may queue builds writes it: no pattern of characters takes long."""
    for text in ("a-" * 127, "a." * 127, "a__" * 85, "a/" * 127, "a" + "-" * 254):
        assert not images.is_image(text + ("!" if len(text) < 255 else ""))


MAVEN = model.Parameter(
    kind=model.ParameterKind.IMAGE,
    allow=("3.*",),
    stands_for="registry.example.com/maven:{value}-jdk",
    container="maven",
    inherits=("maven",),
)


@pytest.mark.parametrize(
    "value", ["4", "3.9/../../evil", "3.9@sha256", "3.9:1", "3.é", "3. 9", "3.{value}", ""]
)
def test_a_part_of_an_image_stays_that_part(value):
    """No other registry, path or digest comes of it."""
    assert "but maven=3.*" in parameters.problem("maven", MAVEN, value)


def test_a_container_beside_the_agents_is_given_the_image():
    """And the part of the pod that has the container."""
    assert parameters.problem("maven", MAVEN, "3.9") == ""
    template = model.Template(
        name=model.TemplateName("pod"),
        labels=frozenset({"pod"}),
        backends=(),
        revision="1",
        parameters={"maven": MAVEN},
    )
    launch = parameters.bound(template, {"maven=3.9"}).launch
    assert launch.side_images == {"maven": "registry.example.com/maven:3.9-jdk"}
    assert launch.inherits == ("maven",)
    assert launch.image is None
