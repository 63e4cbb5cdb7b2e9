"""Where compiled code is kept between runs."""
import os
import sys
import tempfile
from pathlib import Path


def cache_folder(*parts, base=None):
    """A writable folder under the user's cache folder (or `base`), else a temporary one of this user's own."""
    if base:
        base = Path(base)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base.joinpath("refimpl-diffusion-gan", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="refimpl-diffusion-gan-"))
    return folder
