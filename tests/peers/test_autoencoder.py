"""Autoencoders beside diffusers' AutoencoderKL and VQModel: random weights saved there, opened here; same output, same
gradients."""
import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from diffusers import AutoencoderKL, VQModel  # noqa: E402

from refimpl import ops  # noqa: E402
from refimpl.nets.autoencoder import AutoencoderKLConfig, VQModelConfig, decode, encode  # noqa: E402
from refimpl.pretrained import load_folder  # noqa: E402

KL = dict(in_channels=2, out_channels=3, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4,
          latent_channels=3, down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
          up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"))
PLAIN = KL | dict(use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, layers_per_block=1)
STABLE_DIFFUSION = dict(in_channels=3, out_channels=3, block_out_channels=(32, 64, 128, 128), layers_per_block=2,
                        latent_channels=4, norm_num_groups=32, down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4)  # its form at a quarter of its width
VQ = dict(in_channels=1, out_channels=1, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2,
          latent_channels=3, num_vq_embeddings=5, vq_embed_dim=2, down_block_types=("DownEncoderBlock2D",) * 2,
          up_block_types=("UpDecoderBlock2D",) * 2)
CASES = {"kl": (AutoencoderKL, KL, 8), "plain": (AutoencoderKL, PLAIN, 8), "vq": (VQModel, VQ, 8),
         "stable-diffusion": (AutoencoderKL, STABLE_DIFFUSION, 32)}


def saved(case, folder):
    """A model with random parameters, saved; norms are around 1 and 0, the codebook standard normal."""
    kind, settings, size = CASES[case]
    torch.manual_seed(0)
    model = kind(**settings).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(float(name.endswith("weight")) + 0.3 * torch.randn_like(p))
            if name.startswith("quantize"):
                p.copy_(torch.randn_like(p))
    model.save_pretrained(folder)
    return model, np.random.default_rng(0).standard_normal((2, settings["in_channels"], size, size))


def theirs(model, x, z):
    """Their encoder's and decoder's outputs, the quantiser left out."""
    if isinstance(model, VQModel):
        return model.encode(x).latents, model.decode(z, force_not_quantize=True).sample
    return model.encode(x).latent_dist.parameters, model.decode(z).sample


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients(case, tmp_path, rng):
    model, x = saved(case, tmp_path)
    found = load_folder(tmp_path)
    h, _ = encode(found.params, x.astype(np.float32), config=found.config, ops=ops)
    codes = CASES[case][1].get("vq_embed_dim", CASES[case][1]["latent_channels"])
    z = rng.standard_normal((2, codes, *h.shape[2:]))
    y, _ = decode(found.params, z.astype(np.float32), config=found.config, ops=ops)
    with torch.no_grad():
        expected = theirs(model, torch.from_numpy(x).float(), torch.from_numpy(z).float())
    for got, value in zip((h, y), expected):
        assert got.dtype == np.float32 and np.max(abs(got - value.numpy())) <= 1e-4 * max(1, value.abs().max())

    params = load_folder(tmp_path, dtype=np.float64).params
    h, encoder = encode(params, x, config=found.config, ops=ops)
    y, decoder = decode(params, z, config=found.config, ops=ops)
    u, v = rng.standard_normal(h.shape), rng.standard_normal(y.shape)
    (g_encoder, dx), (g_decoder, dz) = encoder(u), decoder(v)
    model = model.double()
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, z)]
    torch.autograd.backward(theirs(model, *leaves), [torch.from_numpy(u), torch.from_numpy(v)])
    got = g_encoder | g_decoder | {"x": dx, "z": dz}
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    expected |= {"x": leaves[0].grad, "z": leaves[1].grad}
    assert got.keys() == expected.keys()
    assert set(params) - set(got) == ({"quantize.embedding.weight"} if case == "vq" else set())
    for name, g in expected.items():
        assert np.max(abs(got[name] - g.numpy())) <= 1e-9 * max(1, float(g.abs().max())), name


def test_quantised(tmp_path):
    """The whole VQModel: nearest rows, straight through backwards."""
    model, x = saved("vq", tmp_path)
    found = load_folder(tmp_path, dtype=np.float64)
    table = found.params["quantize.embedding.weight"]
    h, encoder = encode(found.params, x, config=found.config, ops=ops)
    codes = np.argmin(np.sum((h[:, None] - table[None, :, :, None, None]) ** 2, axis=2), axis=1)  # (N, h, w)
    assert len(set(codes.ravel())) > 1
    y, decoder = decode(found.params, np.moveaxis(table[codes], -1, 1), config=found.config, ops=ops)
    model, x_torch = model.double(), torch.from_numpy(x).requires_grad_()
    y_torch = model(x_torch).sample
    assert np.max(abs(y - y_torch.detach().numpy())) <= 1e-9
    y_torch.backward(torch.ones_like(y_torch))
    _, dx = encoder(decoder(np.ones_like(y))[1])
    assert np.max(abs(dx - x_torch.grad.numpy())) <= 1e-9


@pytest.mark.parametrize("kind, config", [(AutoencoderKL, AutoencoderKLConfig), (VQModel, VQModelConfig)])
def test_defaults(kind, config):
    theirs = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items() if n != "self"}
    assert config()._asdict() == theirs
