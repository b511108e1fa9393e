"""Does an ensemble that shares its weights earn a place beside the plain one, at equal cost?

Run ``python -m benchmarks.shared_weights`` from the root of the repository. The members of a BatchEnsemble (Wen et al.
2020) have one matrix per layer in common; each has a vector for its inputs, one for its outputs, and biases of its own:
y = s * (W (r * x)) + b. TabM (Gorishniy et al. 2025) adds a last layer of its own for each member, and starts r and s
of later layers at one. Both need as many multiplications per step as a plain ensemble, and far fewer weights.

One code trains all of them: 8 members of 64-64 hidden ReLU units, Adam, cosine schedule, 60 epochs of batches of 64, an
L2 penalty of 1e-3 on matrices (``--l2``). Members see the same batches. For each kind the learning rate is the one of
`RATES` with the least loss on splits from `TUNING`; the numbers are means over the splits from `SEEDS`, both chosen
before anything was run. "loss" is the negative log-likelihood of the mean probabilities, "calibration" the expected
calibration error in 10 bins; for diabetes "score" is the root mean squared error of the mean prediction, "loss" its
square in scaled units. "single" is one member.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

SEEDS, TUNING, RATES = range(5), range(100, 103), (1e-3, 3e-3, 1e-2)
HIDDEN, MEMBERS, EPOCHS, BATCH = (64, 64), 8, 60, 64
SETS = {"digits": load_digits, "breast cancer": load_breast_cancer, "diabetes": load_diabetes}
KINDS = ("single", "plain", "batch ensemble", "tabm")


@dataclass
class Split:
    """Standardized features; y are class indices, or scaled targets of a regression."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int  # 0 for a regression
    unit: float


def split(name: str, seed: int) -> Split:
    x, y = SETS[name](return_X_y=True)
    regression = name == "diabetes"
    x, xt, y, yt = train_test_split(
        x, y, test_size=0.25, random_state=seed, stratify=None if regression else y
    )
    scaler = StandardScaler().fit(x)
    unit = float(y.std()) if regression else 1.0
    if regression:
        y, yt = (y - y.mean()) / unit, (yt - y.mean()) / unit
    return Split(
        scaler.transform(x), y, scaler.transform(xt), yt, 0 if regression else int(y.max()) + 1, unit
    )


class Ensemble:
    """M members; `kind` says what they share."""

    def __init__(self, kind: str, sizes: list[int], seed: int, l2: float):
        self.l2 = l2
        rng = np.random.default_rng(seed)
        m = 1 if kind == "single" else MEMBERS
        self.p: dict[str, np.ndarray] = {}
        self.layers = len(sizes) - 1
        for k, (i, o) in enumerate(pairwise(sizes)):
            last = k == self.layers - 1
            shared = kind in ("batch ensemble", "tabm") and not (kind == "tabm" and last)
            lead = 1 if shared else m
            self.p[f"w{k}"] = rng.normal(0.0, np.sqrt(2.0 / i), (lead, o, i))
            self.p[f"b{k}"] = np.zeros((m, 1, o))
            if shared:
                ones = kind == "tabm" and k > 0
                for name, width in (("r", i), ("s", o)):
                    signs = np.ones((m, 1, width)) if ones else rng.choice([-1.0, 1.0], (m, 1, width))
                    self.p[f"{name}{k}"] = np.ones_like(signs) if kind == "tabm" and name == "s" else signs
        self.moments = {n: (np.zeros_like(v), np.zeros_like(v)) for n, v in self.p.items()}
        self.t = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return outputs (M, B, O), and keep what the backward pass needs."""
        h, self.kept = x[None], []
        for k in range(self.layers):
            r, s = self.p.get(f"r{k}", 1.0), self.p.get(f"s{k}", 1.0)
            scaled = h * r
            u = scaled @ self.p[f"w{k}"].swapaxes(1, 2)
            z = u * s + self.p[f"b{k}"]
            self.kept.append((h, scaled, u, z))
            h = np.maximum(z, 0.0) if k < self.layers - 1 else z
        return h

    def backward(self, d: np.ndarray) -> dict[str, np.ndarray]:
        """Return gradients from those of the outputs (M, B, O)."""
        g = {}
        for k in reversed(range(self.layers)):
            h, scaled, u, z = self.kept[k]
            if k < self.layers - 1:
                d = d * (z > 0.0)
            g[f"b{k}"] = d.sum(axis=1, keepdims=True)
            w = self.p[f"w{k}"]
            if f"s{k}" in self.p:
                g[f"s{k}"] = (d * u).sum(axis=1, keepdims=True)
                d = d * self.p[f"s{k}"]
            dw = d.swapaxes(1, 2) @ scaled
            g[f"w{k}"] = (dw.sum(axis=0, keepdims=True) if len(w) < len(dw) else dw) + self.l2 * w
            d = d @ w
            if f"r{k}" in self.p:
                g[f"r{k}"] = (d * h).sum(axis=1, keepdims=True)
                d = d * self.p[f"r{k}"]
        return g

    def step(self, g: dict[str, np.ndarray], rate: float) -> None:
        """One update of Adam."""
        self.t += 1
        for n, v in self.p.items():
            a, b = self.moments[n]
            a += 0.1 * (g[n] - a)
            b += 0.001 * (g[n] ** 2 - b)
            v -= rate * (a / (1 - 0.9**self.t)) / (np.sqrt(b / (1 - 0.999**self.t)) + 1e-8)


def softmax(h: np.ndarray) -> np.ndarray:
    e = np.exp(h - h.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def train(kind: str, data: Split, rate: float, seed: int, l2: float) -> dict[str, float]:
    """Train an ensemble and return its scores on the test part."""
    net = Ensemble(kind, [data.x.shape[1], *HIDDEN, data.classes or 1], seed, l2)
    rng, n = np.random.default_rng(seed + 1), len(data.x)
    steps = EPOCHS * -(-n // BATCH)
    shared = kind in ("batch ensemble", "tabm")
    started = time.process_time()
    for _ in range(EPOCHS):
        order = rng.permutation(n)
        for start in range(0, n, BATCH):
            rows = order[start : start + BATCH]
            h = net.forward(data.x[rows])
            if data.classes:
                d = softmax(h)
                d[:, np.arange(len(rows)), data.y[rows]] -= 1.0
            else:
                d = h - data.y[rows][:, None]
            # the mean over members where they share weights, so that rates mean the same; their sum else
            d /= len(rows) * (len(h) if shared else 1)
            net.step(net.backward(d), rate * 0.5 * (1.0 + np.cos(np.pi * net.t / steps)))
    seconds = time.process_time() - started
    h = net.forward(data.x_test)
    numbers = {"seconds": seconds, "weights": float(sum(v.size for v in net.p.values()))}
    if not data.classes:
        error = float(np.sqrt(np.mean((h.mean(axis=0)[:, 0] - data.y_test) ** 2)))
        return numbers | {"loss": error**2, "score": error * data.unit, "calibration": np.nan}
    p = softmax(h).mean(axis=0)
    loss = -np.mean(np.log(p[np.arange(len(p)), data.y_test] + 1e-12))
    hit, sure = p.argmax(axis=1) == data.y_test, p.max(axis=1)
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs((hit[bins == b] - sure[bins == b]).sum()) for b in range(10)]
    return numbers | {
        "loss": float(loss),
        "score": float(hit.mean()),
        "calibration": float(sum(gaps) / len(p)),
    }


def evaluate(kind: str, name: str, l2: float) -> dict[str, Any]:
    """Choose the rate on tuning splits; return means and standard errors on the others."""
    tuned = {
        rate: np.mean([train(kind, split(name, s), rate, s, l2)["loss"] for s in TUNING]) for rate in RATES
    }  # fmt: skip
    rate = min(tuned, key=lambda r: float(tuned[r]))
    each = [train(kind, split(name, s), rate, s, l2) for s in SEEDS]
    mean = {k: float(np.mean([e[k] for e in each])) for k in each[0]}
    error = {k: float(np.std([e[k] for e in each], ddof=1) / len(each) ** 0.5) for k in each[0]}
    return {"rate": rate, "mean": mean, "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.shared_weights", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--only", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--l2", type=float, default=1e-3, help="penalty on matrices (default 1e-3)")
    options = parser.parse_args()
    print(
        f"{'data':14}{'kind':16}{'rate':>8}{'score':>20}{'loss':>20}{'calibration':>13}{'weights':>9}{'CPU s':>7}"
    )
    for name in options.only:
        for kind in KINDS:
            r = evaluate(kind, name, options.l2)
            m, e = r["mean"], r["error"]
            print(
                f"{name:14}{kind:16}{r['rate']:8.0e}{m['score']:12.4f} ±{e['score']:6.4f}{m['loss']:12.4f} "
                f"±{e['loss']:6.4f}{m['calibration']:13.4f}{m['weights']:9.0f}{m['seconds']:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
