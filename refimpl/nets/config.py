"""From the settings of a config.json to a config: names, types and supported values checked."""
import typing

from refimpl.ops._check import require


def read_settings(label, kind, settings, supported):
    """A config of this kind from a dict of settings.

    Entries whose name starts with an underscore are the file's own and are skipped; lists become tuples.

    Shapes: label opens each message; kind an annotated NamedTuple class with defaults; supported a dict from names to
    the values that are built here.
    Raises: ValueError naming the setting that is unknown, of another type or not supported.
    Source: diffusers, ConfigMixin.
    """
    hints = typing.get_type_hints(kind)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if not k.startswith("_")}
    for name, value in settings.items():
        require(name in hints, f"{label}: unknown setting {name} = {value!r}")
        require(_fits(value, hints[name], kind._field_defaults[name]),
                f"{label}: setting {name} must be like {kind._field_defaults[name]!r}, got {value!r}")
    config = kind(**settings)
    for name, values in supported.items():
        require(getattr(config, name) in values, f"{label}: setting {name} = {getattr(config, name)!r} is not "
                                                 f"supported; expected one of {values}")
    return config


def _fits(value, hint, default):
    """Whether a value has the annotated type, an int serving as a float; a tuple's items are like its default's."""
    if isinstance(value, bool) and hint is not bool:  # which Python counts as an int
        return False
    if isinstance(value, tuple) and isinstance(default, tuple):
        return len(value) > 0 and all(_fits(item, type(default[0]), None) for item in value)
    return isinstance(value, int | float if hint is float else hint)
