"""Predict with a model file of xpnet where only NumPy is installed. Copy this file; it may be changed freely.

    net = Predictor("runs/digits-1/model.safetensors")
    net.predict(samples)         # names of classes, 0 and 1 per label, or numbers
    net.predict_proba(samples)

From a shell: python numpy_predictor.py model.safetensors samples.npy
"""

import hashlib
import json
import math
import sys

import numpy as np

TYPES = {"F32": np.float32, "F64": np.float64}


def sigmoid(z):
    return 0.5 * np.tanh(0.5 * z) + 0.5


def elu(z, a=1.0):
    return np.where(z > 0, z, a * np.expm1(np.minimum(z, 0)))


def hard_sigmoid(z):
    return np.clip(z / 6 + 0.5, 0, 1)


def erf(z):
    return np.vectorize(math.erf, otypes=[z.dtype])(z)


ACTIVATIONS = {
    "identity": lambda z: z,
    "step": lambda z: np.where(z > 0, 1.0, 0.0),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z, a=0.01: np.where(z >= 0, z, a * z),
    "softplus": lambda z: np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))),
    "elu": elu,
    "selu": lambda z: 1.0507009873554805 * elu(z, 1.6732632423543772),
    "gelu": lambda z: 0.5 * z * (1 + erf(z * math.sqrt(0.5))),
    "gelu_tanh": lambda z: 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))),
    "silu": lambda z: z * sigmoid(z),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "hard_sigmoid": hard_sigmoid,
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "hard_swish": lambda z: z * hard_sigmoid(z),
}
ALIASES = {"logistic": "sigmoid", "linear": "identity", "none": "identity", "swish": "silu"}
LINKS = {
    "softmax_cross_entropy": "softmax",
    "binary_cross_entropy": "sigmoid",
    "poisson": "exp",
    "hinge": None,
    **dict.fromkeys(("squared_error", "absolute_error", "huber", "quantile"), "identity"),
}


def read(path):
    """Return the tensors and the metadata of a model file, after checking its checksum."""
    with open(path, "rb") as stream:
        data = stream.read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    facts = header.pop("__metadata__")
    digest = b'"sha256":"%s"' % facts["sha256"].encode()
    blank = data[: 8 + size].replace(digest, b'"sha256":"%s"' % (b"0" * 64))
    if hashlib.sha256(blank + data[8 + size :]).hexdigest() != facts["sha256"]:
        raise ValueError(f"{path} is damaged: its checksum does not fit")
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        dtype = np.dtype(TYPES[entry["dtype"]]).newbyteorder("<")
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
    skip = ("format", "format_version", "sha256")
    return tensors, {key: json.loads(text) for key, text in facts.items() if key not in skip}


class Predictor:
    def __init__(self, path):
        self.tensors, facts = read(path)
        if facts.get("kind") != "model" or facts["n_models"] is not None or facts.get("tabular"):
            raise ValueError(
                f"{path}: expected one model that takes arrays, not a population or a table's columns"
            )
        if facts.get("layers_of"):
            raise ValueError(f"{path} has layers of somebody's own, {facts['layers_of']}")
        self.task, self.classes, self.recipe = facts["task"], facts["classes"], facts["preprocessing"]
        self.loss, self.dtype = (facts["loss"] or "").partition(":")[0], np.dtype(facts["dtype"])
        self.units = facts.get("target_units")  # that a regression learned its targets in
        self.unsmoothing, plan = facts.get("unsmoothing"), facts["architecture"]
        self.activations = [*plan["activation"], plan["output_activation"]]

    def outputs(self, x):
        """Return what the last layer gives for raw samples (B, ...), as (B, O)."""
        h = np.asarray(x, np.float64).reshape(len(x), -1)
        if self.recipe is not None:  # in float64: large numbers may differ by less than float32 resolves
            h = h * np.asarray(self.recipe["scale"]) + np.asarray(self.recipe["shift"])
        h = h.astype(self.dtype)
        numbers = sorted(int(name.split(".")[1]) for name in self.tensors if name.endswith(".weight"))
        for spec, i in zip(self.activations, numbers, strict=True):
            name, _, parameter = spec.strip().lower().partition(":")
            name = name.replace("-", "_")
            z = h @ self.tensors[f"layers.{i}.weight"].T + self.tensors[f"layers.{i}.bias"]
            if name == "maxout":  # the largest of k pieces, one after the other
                h = z.reshape(len(z), int(float(parameter or 2)), -1).max(axis=1)
            elif name == "prelu":  # its slopes are a layer of their own, right behind the weights
                h = np.where(z >= 0, z, self.tensors[f"layers.{i + 1}.slope"] * z)
            else:
                f = ACTIVATIONS.get(ALIASES.get(name, name))
                if f is None:
                    raise ValueError(f"nothing is known of the activation {name!r}; add it to ACTIVATIONS")
                h = (f(z, float(parameter)) if parameter else f(z)).astype(self.dtype)
        return h

    def predict_proba(self, x):
        """Return probabilities of classes (B, C) or of labels (B, O)."""
        p = self._probabilities(x)
        if self.unsmoothing is None:
            return p
        share = self.unsmoothing / p.shape[1]  # the network learned smoothed labels
        q = np.maximum((p - share) / (1 - self.unsmoothing), share / 20)
        return q / q.sum(axis=1, keepdims=True)

    def _link(self):
        if self.task is None or self.loss not in LINKS:
            raise ValueError(
                f"nothing is known of the loss {self.loss!r}; add what it makes of outputs to LINKS"
            )
        return LINKS[self.loss]

    def _probabilities(self, x):
        h, link = self.outputs(x), self._link()
        if self.task not in ("classification", "multilabel") or link is None:
            raise ValueError("this model knows no probabilities")
        if link == "softmax":
            p = np.exp(h - h.max(axis=1, keepdims=True))
            return p / p.sum(axis=1, keepdims=True)
        if link == "sigmoid":  # small probabilities keep all their digits
            e = np.exp(-np.abs(h))
            p, rest = np.where(h >= 0, 1, e) / (1 + e), np.where(h >= 0, e, 1) / (1 + e)
        else:
            p = np.clip(h, 0, 1)
            rest = 1 - p
        if self.task == "multilabel":
            return p
        if p.shape[1] == 1:
            return np.concatenate([rest, p], axis=1)
        total = p.sum(axis=1, keepdims=True)
        return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / p.shape[1])

    def predict(self, x):
        """Return classes (B,) by name, or by number where they have none; labels (B, O); or numbers (B, O)."""
        h, link = self.outputs(x), self._link()
        if self.task == "regression":
            h = np.exp(h) if link == "exp" else h
            return h if self.units is None else h * np.asarray(self.units["scale"]) + self.units["mean"]
        limit = 0.0 if self.loss in ("binary_cross_entropy", "hinge") else 0.5
        if self.task == "multilabel":
            return (h > limit).astype(int)
        index = (h[:, 0] > limit).astype(int) if h.shape[1] == 1 else h.argmax(axis=1)
        return np.asarray(self.classes)[index] if self.classes else index


if __name__ == "__main__":
    print(*Predictor(sys.argv[1]).predict(np.load(sys.argv[2], allow_pickle=False)), sep="\n")
