"""Open folders of weights in diffusers' layout: config.json beside diffusion_pytorch_model.safetensors."""
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from refimpl.nets.autoencoder import autoencoder_config, autoencoder_shapes
from refimpl.nets.unet import unet_config, unet_shapes
from refimpl.ops._check import require

WEIGHTS = "diffusion_pytorch_model.safetensors"
MODELS = {"UNet2DModel": (unet_config, unet_shapes), "AutoencoderKL": (autoencoder_config, autoencoder_shapes),
          "VQModel": (autoencoder_config, autoencoder_shapes)}
# Attention's names in folders written before diffusers 0.15.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class Pretrained(NamedTuple):
    """What a folder holds: parameters, the network's config, and the scheduler's settings as a dict, or None."""

    params: dict
    config: tuple
    scheduler: dict | None


def load_folder(path, dtype=np.float32):
    """Open a pipeline's folder (model_index.json), for its U-Net, or one network's folder.

    Shapes: path a folder; dtype, that of the parameters.
    Returns Pretrained(params, config, scheduler).
    Raises: ValueError with one sentence when a file is missing, foreign or truncated, a setting is not supported, or a
    tensor is missing, unexpected, of another shape, or not finite.
    Source: diffusers' save_pretrained.
    """
    root = Path(path)
    require(root.is_dir(), f"weights: {root} is not a folder")
    pipeline = (root / "model_index.json").exists()
    folder = root / "unet" if pipeline else root
    settings = read_json(folder / "config.json")
    kind = settings.get("_class_name")
    require(kind in MODELS, f"weights: {folder / 'config.json'} describes {kind}; expected one of {', '.join(MODELS)}")
    to_config, to_shapes = MODELS[kind]
    config = to_config(settings)
    scheduler = root / "scheduler" / "scheduler_config.json"
    return Pretrained(read_weights(folder, to_shapes(config), dtype), config,
                      read_json(scheduler) if pipeline and scheduler.exists() else None)


def read_json(path):
    """The dict in a JSON file.

    Shapes: path a file. Raises: ValueError with one sentence when it is missing or holds something else.
    Source: RFC 8259.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"weights: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"weights: {path} is not JSON: {error}") from None
    require(isinstance(settings, dict), f"weights: {path} must hold a JSON object, got {type(settings).__name__}")
    return settings


def read_weights(folder, shapes, dtype):
    """The tensors of a folder, exactly those that shapes asks for, finite, converted to dtype.

    Shapes: shapes a dict from names to shapes; returns a dict from the same names to arrays.
    Raises: ValueError with one sentence, as load_folder.
    Source: the safetensors format.
    """
    index = folder / f"{WEIGHTS}.index.json"
    files = [WEIGHTS]
    if index.exists():
        files = read_json(index).get("weight_map")
        require(isinstance(files, dict) and files and all(isinstance(name, str) for name in files.values()),
                f"weights: {index} must hold a weight_map from tensors to files")
        files = sorted(set(files.values()))
    tensors = {}
    for name in files:
        tensors |= read_safetensors(folder / name)
    tensors = {re.sub(r"(?<=attentions\.)(\d+)\.(\w+)\.(?=weight|bias)",
                      lambda m: f"{m[1]}.{OLD_NAMES.get(m[2], m[2])}.", name): a for name, a in tensors.items()}
    for name in shapes:
        require(name in tensors, f"weights: {folder} lacks the tensor {name}")
    for name, a in tensors.items():
        require(name in shapes, f"weights: {folder} holds an unexpected tensor {name}")
        require(a.shape == tuple(shapes[name]), f"weights: tensor {name} has shape {a.shape}, expected {shapes[name]}")
        require(np.issubdtype(a.dtype, np.floating), f"weights: tensor {name} is {a.dtype}, expected floating point")
        require(bool(np.all(np.isfinite(a))), f"weights: tensor {name} holds NaN or infinity")
    return {name: tensors[name].astype(dtype) for name in shapes}


def read_safetensors(path):
    """All tensors of one file.

    Shapes: path a file; returns a dict from names to arrays.
    Raises: ValueError with one sentence when it is missing, truncated or no safetensors file.
    Source: the safetensors format.
    """
    require(path.exists(), f"weights: {path} does not exist"
            + ("; only PyTorch's .bin is there, which is code and is not opened: convert it to safetensors"
               if path.with_suffix(".bin").exists() else ""))
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file, not a dict)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise ValueError(f"weights: {path} is no complete safetensors file that NumPy can hold: {error}") from None
