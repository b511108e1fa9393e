"""One activation and one dropout rate per layer.

Names, or names with a parameter such as "leaky_relu:0.2" and "maxout:3"; "prelu" learns a slope per unit.
Dropout and noise act in training only.
"""

import numpy as np

import xpnet
from xpnet.data import load

digits = load("digits")
model = xpnet.MLP(
    [64, 96, 64, 32, 10],
    activation=["leaky_relu:0.2", "maxout:3", "prelu"],
    dropout=[0.2, 0.1, 0.0],
    input_noise=0.05,
    seed=1,
)
model.preprocessing = digits.preprocessing
for layer in model.layers:
    print(" ", layer.label)

history = xpnet.fit(
    model, (digits.x_train, digits.y_train), optimizer=xpnet.AdamW(lr=2e-3, weight_decay=0.01), epochs=12,
    batch_size=32, max_norm=3.0,
)  # fmt: skip
result = xpnet.evaluate(model, (digits.x_test, digits.y_test))
slopes = model.get_weights()["layers.6.slope"]
print(f"test accuracy {result['accuracy']:.3f}; slopes learnt from {slopes.min():.2f} to {slopes.max():.2f}")
print("shapes of what each layer gives:", [h.shape for h in model.activations(digits.x_test[:2])])
assert np.allclose(model.outputs(digits.x_test[:2]), model.activations(digits.x_test[:2])[-1])
