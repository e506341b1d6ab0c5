"""The settings classes of every kind of backend, as reading a configuration needs them.

Imports the modules of settings, none of an SDK. Refuses to know any kind by name.
"""

from backends import registry
from broker.config.settings import KindClasses


def classes() -> dict[str, KindClasses]:
    """Return them by the name of their kind."""
    return {
        name: KindClasses(
            settings=registry.settings_class(name),
            template_settings=registry.template_settings_class(name),
            alone=kind.alone,
            lease=registry.lease_settings_class(name),
            cap=registry.default_cap(name),
            style=kind.launch_style,
            maker=registry.maker(name),
            pipelines=kind.pipelines,
            own_folder=kind.own_folder,
            given_refusal=kind.given_refusal,
            run_refusal=kind.run_refusal,
            unheard=registry.unheard(name),
            pretends=kind.pretends,
            given_most_bytes=kind.given_most_bytes,
            given_needs=kind.given_needs,
            given_file_bytes=kind.given_file_bytes,
        )
        for name, kind in registry.KINDS.items()
    }
