"""A callback of your own.

A callback sees the `Trainer`, may add to the record of each epoch, and may stop the run. This one measures
the balanced accuracy on held-out data after each epoch, and ends training once it is high enough.
"""

import numpy as np

import xpnet
from xpnet.backend import get_backend
from xpnet.metrics import confusion_matrix


class BalancedAccuracy(xpnet.Callback):
    """Mean of the recalls of all classes; stops training from `enough` on."""

    def __init__(self, x, y, *, enough):
        self.x, self.y, self.enough = x, y, enough

    def on_epoch_end(self, trainer, record):
        be = get_backend("cpu")
        counts = confusion_matrix(be, be.asarray(self.y), be.asarray(trainer.model.predict(self.x)), 2)
        record["balanced"] = float(np.mean(np.diag(counts) / counts.sum(axis=1)))
        if record["balanced"] >= self.enough:
            trainer.stop("balanced enough")


rng = np.random.default_rng(0)
X = rng.normal(size=(2000, 3))
y = (X.sum(axis=1) > 2.2).astype(int)  # about one in ten

model = xpnet.MLP([3, 16, 2], seed=0)
watch = BalancedAccuracy(X[1500:], y[1500:], enough=0.95)
history = xpnet.fit(
    model, (X[:1500], y[:1500]), optimizer=xpnet.Adam(lr=0.01), epochs=50, batch_size=32, callbacks=[watch]
)
for record in history[:: max(len(history) // 4, 1)]:
    print(
        f"epoch {record['epoch']:2d}: accuracy {record['train_accuracy']:.3f}, balanced {record['balanced']:.3f}"
    )
print(f"ended after {len(history)} epochs: {history.stopped}")
