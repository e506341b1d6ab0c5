import pytest

from jnlp import launch, version
from tests.each import each


@each(
    ("text", "safe"),
    [
        ("2.263.4", False),
        ("2.462.1.3", False),
        ("2.504.3.28227", False),
        ("2.516", False),
        ("2.516.1", False),
        ("2.516.3", False),
        ("2.516.3.28669", False),
        ("2.517-SNAPSHOT (private-09/01/2025)", False),
        ("2.517", True),
        ("2.518", True),
        ("2.528", True),
        ("2.528-SNAPSHOT", True),
        ("2.528.1", True),
        ("2.528.1-SNAPSHOT (private-11/01/2025 10:00-me)", True),
        ("2.528.1.29716", True),
        ("2.541.3", True),
        ("2.568.2", True),
        ("3.0", True),
        ("10.1.1", True),
        ("1.651.3", False),
        ("", False),
        ("?", False),
        ("latest", False),
        ("2", False),
        ("v2.528.1", False),
        ("2." + "9" * 5000, False),
    ],
)
def test_where_offline_loses_no_build(text, safe):
    """From weekly 2.517 and LTS 2.528.1; whatever cannot be read is not safe."""
    assert version.safe_to_retire_by_offline(text) is safe


@pytest.mark.parametrize(
    ("text", "quiet"),
    [("2.263.4", False), ("2.426.3", False), ("2.439", False), ("2.440.1", True), ("", False)],
)
def test_where_a_schedule_closes_no_connection(text, quiet):
    """From 2.440 on; whatever cannot be read is not trusted."""
    assert version.schedule_only_refuses(text) is quiet


@each(
    ("text", "style"),
    [
        ("2.263.4", launch.OptionStyle.POSITIONAL),
        ("2.426.3", launch.OptionStyle.POSITIONAL),
        ("2.439", launch.OptionStyle.POSITIONAL),
        ("2.440.1", launch.OptionStyle.NAMED),
        ("2.440", launch.OptionStyle.NAMED),
        ("2.452.4", launch.OptionStyle.NAMED),
        ("2.462.1", launch.OptionStyle.NAMED_WITH_LIMIT),
        ("2.462.1.3", launch.OptionStyle.NAMED_WITH_LIMIT),
        ("2.568.2", launch.OptionStyle.NAMED_WITH_LIMIT),
        ("", launch.OptionStyle.POSITIONAL),
        ("unknown", launch.OptionStyle.POSITIONAL),
    ],
)
def test_the_style_of_the_bundled_agent(text, style):
    """LTS 2.440.1 bundles remoting 3206, 2.462 has 3248; unknown gets what all understand."""
    assert launch.remoting_style(text) is style
