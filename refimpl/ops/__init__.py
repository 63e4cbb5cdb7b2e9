"""Array operations, each with its vjp. `refimpl.ops` is also a backend: any network takes it as its argument `ops`."""
from .activation import (gelu, gelu_vjp, leaky_relu, leaky_relu_vjp, logsumexp, logsumexp_vjp, relu, relu_vjp,
                         sigmoid, sigmoid_vjp, silu, silu_vjp, softmax, softmax_vjp, softplus, softplus_vjp,
                         tanh, tanh_vjp)
