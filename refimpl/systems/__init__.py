"""Published systems. A module of this package states DEFAULTS, its config, and build(config, data) -> System.

Where the config depends on the data, it also states POINTS, what differs for points, or UNLABELLED, without classes.
"""
import importlib
import json

from refimpl.ops._check import require

SYSTEMS = {name: f"refimpl.systems.{name.replace('-', '_')}" for name in (
    "ddpm", "improved-ddpm", "ncsn", "score-sde", "edm", "flow-matching", "cold",
    "gan", "lsgan", "wgan", "wgan-gp", "cgan", "dcgan", "sngan", "sagan", "biggan", "progressive", "stylegan",
    "stylegan2", "text-to-image", "pix2pix", "cyclegan", "srgan",
    "autoencoder", "vae", "vqvae", "vqvae2", "vqgan", "dvae", "nice", "realnvp", "glow", "ebm")}


def module(name):
    """The module of a system. Raises: ValueError for an unknown name."""
    require(name in SYSTEMS, f"system must be one of {', '.join(SYSTEMS)}, got {name!r}")
    return importlib.import_module(SYSTEMS[name])


def configure(name, data, changes):
    """The config of a system: its defaults for these data with some entries changed. They may be strings, read as JSON.

    Raises: ValueError for an entry that the system has not, or a value of another kind than the default's.
    """
    system = module(name)
    config = system.DEFAULTS | (getattr(system, "POINTS", {}) if len(data.shape) == 1 else {}) | (
        {} if data.classes else getattr(system, "UNLABELLED", {}))
    for entry, value in changes.items():
        require(entry in config, f"{name} has no setting {entry!r}; it has {', '.join(sorted(config))}")
        value = parse(value)
        same = type(value) is type(config[entry]) or (type(config[entry]) is float and type(value) is int)
        require(same, f"{name}: setting {entry} is like {config[entry]!r}, got {value!r}")
        config = config | {entry: value}
    return config


def parse(text):
    """A setting's value: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return text


def build(name, config, data):
    """The System of that name for the data. Raises: ValueError for a config that does not fit."""
    return module(name).build(config, data)
