"""What a training starts from where nothing is said: by the number of samples, for estimators and for tables alike.

Features, such as those of tables, are few and cheap to go through, so networks for them learn from many passes with a
rate that falls to zero, and from few rows with a penalty. `docs/estimators.md` says how the numbers were chosen.
"""

from __future__ import annotations

EVALUATION_BATCH = 1000  # rows per forward pass of an evaluation

LEARNING_RATE, EPOCHS, LABEL_SMOOTHING = 3e-3, 200, 0.1
VALID_FRACTION = 0.1
SMALL = 1000  # up to so many rows, those held out for validation are missed more than they tell
_NOISE = 0.33
#: Of tables with so many rows that 200 epochs would take long: fewer of them, but so many updates, or old ones' epochs.
_UPDATES, _FEWEST_EPOCHS = 40_000, 30


def batch_size(n: int) -> int:
    """Examples per update: n / 128, within 64 and 256.

    Examples
    --------
    >>> batch_size(150), batch_size(20_000), batch_size(1_000_000)
    (64, 156, 256)
    """
    return max(64, min(256, n // 128))


def epochs(n: int, batch: int) -> int:
    """Passes over n rows: 200, and fewer where they would be more than 40,000 updates, but at least 30.

    Examples
    --------
    >>> epochs(150, 64), epochs(20_000, 156), epochs(100_000, 256), epochs(1_000_000, 256)
    (200, 200, 102, 30)
    """
    return max(_FEWEST_EPOCHS, min(EPOCHS, _UPDATES // max(1, -(-n // batch))))


def hidden(n: int, task: str) -> tuple[int, ...]:
    """Widths of the hidden layers."""
    if task == "regression":
        return (256, 128)
    return (512,) if n <= SMALL else (256,)


def penalty(n: int, task: str) -> float:
    """The factor l2 of the penalty on the mean loss: the fewer rows, the larger."""
    if task == "regression":
        return max(min(0.1, 12_000.0 / n**2), 1e-4)
    return min(max(1.0 / n, 1e-3), 0.01)


def dropout(n: int, task: str) -> float:
    """The share of hidden units dropped."""
    return 0.1 if task == "regression" and n >= 2000 else 0.0


def input_noise(n: int, n_features: int, task: str) -> float:
    """Standard deviation of the noise on scaled features, where an epoch has more than one batch."""
    # the distance to the nearest sample shrinks like this; more would blur classes that few features tell apart
    return 0.0 if task == "regression" else float(_NOISE * n ** (-1.0 / n_features))
