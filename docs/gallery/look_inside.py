"""Looking inside: gradients, dead and saturated units.

`statistics=True` adds, per layer and epoch, the norms of weights and gradients, the share of dead units (no
gradient for any example) and of saturated ones. `trace` shows every array of a single training step.
"""

import numpy as np

import xpnet
from xpnet.data import load
from xpnet.testing import trace

digits = load("digits")
x, y = digits.preprocessing(digits.x_train), digits.y_train

print(f"{'':<24}{'layer':<26}{'gradient':>9}{'dead':>7}{'saturated':>11}")
for name, activation, bias in (
    ("sigmoid, six layers", "sigmoid", 0.0),
    ("relu, six layers", "relu", 0.0),
    ("relu, biases of -2", "relu", -2.0),
):
    model = xpnet.MLP([64, *[30] * 5, 10], activation=activation, bias=bias, seed=0)
    history = xpnet.fit(model, (x, y), optimizer=xpnet.SGD(lr=0.1), epochs=1, batch_size=64, statistics=True)
    for entry in history[-1]["layers"][:5:2]:
        shares = "".join(f"{entry[key]:{width}.0%}" for key, width in (("dead", 7), ("saturated", 11)))
        print(f"{name:<24}{entry['layer']:<26}{entry['gradient_norm']:>9.1e}{shares}")

one = xpnet.MLP([64, 8, 10], activation="tanh", seed=0)
hidden, output = trace(one, x[:4], y[:4])
dW = hidden.gradients["weight"]
print("one step, hidden layer: x", hidden.x.shape, "z", hidden.z.shape, "dW", dW.shape)
assert np.allclose(dW, hidden.dz.T @ hidden.x, atol=1e-6)  # the formula of back-propagation
