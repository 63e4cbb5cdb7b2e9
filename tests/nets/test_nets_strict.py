"""Networks and their pullbacks on device arrays that refuse conversion to NumPy: same bits as on the host."""
import numpy as np
import pytest
from strict import StrictArray, to_device, to_host

from refimpl import ops
from refimpl.facts import Draw
from refimpl.facts.nets import random_params
from refimpl.nets.classifier import classifier, classifier_shapes
from refimpl.nets.mlp import TimeMLPConfig, mlp, mlp_shapes, time_mlp, time_mlp_shapes
from refimpl.nets.unet import unet, unet_config, unet_shapes

SMALL = dict(in_channels=1, out_channels=2, block_out_channels=[4, 8], layers_per_block=1, norm_num_groups=2,
             down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"],
             attention_head_dim=4, num_class_embeds=11)


def unet_case(d, **settings):
    config = unet_config(SMALL | settings)
    net = lambda p, x: unet(p, x, np.array([3.5, 900.0]), np.array([0, 10]), config=config, ops=ops, key=5)
    return net, random_params(unet_shapes(config), d), d.array(2, 1, 4, 4)


def mlp_case(d):
    return lambda p, x: mlp(p, x, ops=ops), random_params(mlp_shapes((4, 3, 2)), d), d.array(3, 2, 2)


def time_mlp_case(d):
    config = TimeMLPConfig(features=4, width=5, depth=2, num_class_embeds=3)
    net = lambda p, x: time_mlp(p, x, np.array([3.5, 900.0]), np.array([0, 2]), config=config, ops=ops)
    return net, random_params(time_mlp_shapes(config), d), d.array(2, 4)


def classifier_case(d):
    def net(p, x):
        features, logits, pullback = classifier(p, x, ops=ops)
        return logits, lambda dy: pullback(features, dy)

    return net, random_params(classifier_shapes((2, 6, 4), [3, 4], 3), d), d.array(2, 2, 6, 4)


CASES = {
    "unet": unet_case, "mlp": mlp_case, "time_mlp": time_mlp_case, "classifier": classifier_case,
    "unet-adaptive": lambda d: unet_case(d, resnet_time_scale_shift="scale_shift", downsample_padding=0),
    "unet-dropout": lambda d: unet_case(d, dropout=0.3, center_input_sample=True, mid_block_scale_factor=2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_on_device(case, dtype):
    net, params, x = CASES[case](Draw(1))
    params, x = {n: p.astype(dtype) for n, p in params.items()}, x.astype(dtype)
    y, pullback = net(params, x)
    grads, dx = pullback(y)
    y_device, pullback = net(to_device(params), to_device(x))
    grads_device, dx_device = pullback(y_device)
    for host, device in ((y, y_device), (dx, dx_device), *((grads[n], grads_device[n]) for n in grads)):
        assert isinstance(device, StrictArray) and device.dtype == dtype
        assert np.array_equal(host, to_host(device))
