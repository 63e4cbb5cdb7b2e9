"""Array operations, each with its vjp. `refimpl.ops` is also a backend: any network takes it as its argument `ops`."""
from .activation import (gelu, gelu_vjp, leaky_relu, leaky_relu_vjp, logsumexp, logsumexp_vjp, prelu, prelu_vjp,
                         relu, relu_vjp, sigmoid, sigmoid_vjp, silu, silu_vjp, softmax, softmax_vjp, softplus,
                         softplus_vjp, tanh, tanh_vjp)
from .attention import attention, attention_vjp
from .conv import conv2d, conv2d_sum, conv2d_vjp, conv_transpose2d, conv_transpose2d_vjp
from .embedding import embedding, embedding_vjp, sinusoidal_embedding, sinusoidal_embedding_vjp
from .linear import linear, linear_vjp
from .losses import cross_entropy, cross_entropy_vjp, l1, l1_vjp, mse, mse_vjp
from .modulate import adain, adain_vjp, modulated_conv2d, modulated_conv2d_vjp, pixel_norm, pixel_norm_vjp
from .norm import (batch_norm, batch_norm_vjp, group_norm, group_norm_vjp, instance_norm, instance_norm_vjp,
                   layer_norm, layer_norm_vjp)
from .random import dropout, dropout_vjp, fold, normal, philox4x32, uniform
from .resample import (average_pool, average_pool_vjp, concatenate, concatenate_vjp, max_pool, max_pool_vjp,
                       pixel_shuffle, pixel_shuffle_vjp, upsample_nearest, upsample_nearest_vjp)
from .steps import noise_mse, noise_mse_vjp, q_sample, q_sample_vjp, sampler_step, sampler_step_vjp
