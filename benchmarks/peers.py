"""One class per side. Each trains the same network on the same batches, written as its library's experts would.

A side is made from a `Problem` and can

* ``run(n)``       train on the next n prepared batches, and return when the last one is really done;
* ``reset()``      go back to the initial weights, moments and batch;
* ``outputs(x)``   give what the last layer says before softmax, up to a constant per row, as a NumPy array;
* ``predict(x)``   give class indices as a NumPy array, the way a user of the library would;
* ``epoch()``      shuffle all samples, train on them once and know the mean loss.

Batches lie ready in the library's own arrays, in memory; nobody's step pays for a conversion. Waiting for the
device happens once, at the end of ``run``, which favours libraries that work ahead (JAX).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice
from typing import Any, ClassVar

import numpy as np

from .grid import BETA1, BETA2, EPS, MOMENTUM
from .problem import Problem


class Side:
    """Base of all sides.

    Attributes
    ----------
    name : str
        As in `grid.Goal` and on the command line.
    needs : tuple of str
        Modules that must be installed.
    multiple : int
        `run` takes multiples of it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    multiple = 1

    def __init__(self, problem: Problem):
        self.problem, self.row = problem, problem.row
        self.lr = self.row.lr

    @classmethod
    def missing(cls) -> str | None:
        """Why this side cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def reset(self) -> None:
        raise NotImplementedError

    def run(self, n: int) -> None:
        raise NotImplementedError

    def context(self) -> AbstractContextManager[Any]:
        """What a user's training loop would be in around `run`."""
        return nullcontext()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def predict(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def epoch(self) -> float:
        raise NotImplementedError


# --- xpnet ------------------------------------------------------------------------------------------
class Xpnet(Side):
    """xpnet on NumPy: `Trainer.step` on the rows of each batch, which it gathers from all samples itself.

    Several steps are asked for at once where `Trainer.run` would ask so.
    """

    name = "xpnet"

    @staticmethod
    def device() -> Any:
        return "cpu"

    def __init__(self, problem: Problem):
        import xpnet

        super().__init__(problem)
        kinds: dict[str, Callable[[], Any]] = {
            "sgd": lambda: xpnet.SGD(lr=self.lr, momentum=MOMENTUM),
            "adam": lambda: xpnet.Adam(lr=self.lr, beta1=BETA1, beta2=BETA2, eps=EPS),
        }
        self.model = xpnet.MLP(self.row.sizes, activation="relu", device=self.device())
        self._initial = {
            f"layers.{i}.{kind}": values
            for i, pair in enumerate(problem.weights)
            for kind, values in zip(("weight", "bias"), pair, strict=True)
        }
        self.trainer = xpnet.Trainer(
            self.model, (problem.x, problem.y), optimizer=kinds[self.row.optimizer](),
            batch_size=self.row.batch, epochs=0,
        )  # fmt: skip
        whole = problem.n_batches * self.row.batch
        self._rows = np.arange(whole).reshape(problem.n_batches, self.row.batch)
        self.reset()

    def reset(self) -> None:
        self.model.set_weights(self._initial)
        for moment in self.trainer.step.update.moments.values():
            moment[...] = 0.0
        self.trainer.step.n_updates = 0
        self._next = 0

    def run(self, n: int) -> None:
        step, rows = self.trainer.step, self._rows
        at_once = step.at_once(min(n, len(rows)))
        while n:
            k = at_once if at_once <= min(n, len(rows) - self._next) else 1
            if k > 1:
                step.several(rows[self._next : self._next + k], [1.0] * k)
            else:
                step(rows[self._next])
            self._next = (self._next + k) % len(rows)
            n -= k
        self.model.be.synchronize()

    def context(self) -> AbstractContextManager[Any]:
        return self.trainer.tuned()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return self.model.outputs(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x)

    def epoch(self) -> float:
        self.trainer.epochs += 1
        return self.trainer.run()[-1]["train_loss"]


class XpnetNumba(Xpnet):
    """xpnet on NumPy with formulas compiled by Numba."""

    name = "xpnet.numba"
    needs = ("numba",)

    @staticmethod
    def device() -> Any:
        return "numba"


class XpnetReference(Xpnet):
    """xpnet's reference back end: every operation in plain Array-API calls on NumPy."""

    name = "reference"

    @staticmethod
    def device() -> Any:
        from xpnet.backend.reference import ReferenceBackend

        return ReferenceBackend(np)


class XpnetCuda(Xpnet):
    """xpnet on CuPy."""

    name = "cupy"
    needs = ("cupy",)

    @staticmethod
    def device() -> Any:
        return "cuda"

    @classmethod
    def missing(cls) -> str | None:
        import xpnet

        reason = super().missing()
        if reason is None:
            try:
                xpnet.get_backend("cuda")
            except xpnet.XpnetError as error:
                reason = str(error)
        return reason


class Floor(Side):
    """The bare matmuls of a step, with ``out=``, on NumPy's BLAS: what no step built on that BLAS can beat."""

    name = "floor"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        rng = np.random.default_rng(1)
        b, sizes = self.row.batch, self.row.sizes
        self._w = [w.copy() for w, _ in problem.weights]
        self._dw = [np.empty_like(w) for w in self._w]
        # operands stay ordinary numbers: no result is the operand of another product
        self._a = [rng.standard_normal((b, n), dtype=np.float32) for n in sizes[1:-1]]
        self._dz = [rng.standard_normal((b, n), dtype=np.float32) for n in sizes[1:]]
        self._z = [np.empty((b, n), np.float32) for n in sizes[1:]]
        self._dx = [np.empty((b, n), np.float32) for n in sizes[1:-1]]
        self._x = [x for x, _ in problem.batches()]
        self.reset()

    def reset(self) -> None:
        self._next = cycle(self._x)

    def run(self, n: int) -> None:
        for x in islice(self._next, n):
            inputs = (x, *self._a)
            for a, w, z in zip(inputs, self._w, self._z, strict=True):
                np.matmul(a, w.T, out=z)
            for i in range(len(self._w) - 1, -1, -1):
                np.matmul(self._dz[i].T, inputs[i], out=self._dw[i])
                if i:
                    np.matmul(self._dz[i], self._w[i], out=self._dx[i - 1])


# --- PyTorch ----------------------------------------------------------------------------------------
class Torch(Side):
    """PyTorch, eager: `nn.Sequential`, fused optimizer, gradients set to None.

    The fused optimizers were faster than the `foreach` and single-tensor ones on every row of the grid.
    """

    name = "torch"
    needs = ("torch",)

    def __init__(self, problem: Problem):
        import torch
        from torch import nn

        super().__init__(problem)
        self.torch = torch
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
        parts: list[Any] = []
        for n_in, n_out in zip(self.row.sizes, self.row.sizes[1:], strict=False):
            parts += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.net = nn.Sequential(*parts[:-1])
        self.params = list(self.net.parameters())
        self.optimizer = (
            torch.optim.SGD(self.params, lr=self.lr, momentum=MOMENTUM, fused=True)
            if self.row.optimizer == "sgd"
            else torch.optim.Adam(self.params, lr=self.lr, betas=(BETA1, BETA2), eps=EPS, fused=True)
        )
        self._initial = [torch.from_numpy(v) for pair in problem.weights for v in pair]
        self._x, self._y = torch.from_numpy(problem.x), self._targets(problem.y)
        self._batches = [(torch.from_numpy(x), self._targets(y)) for x, y in problem.batches()]
        self._loss = self._make_loss()
        self.reset()

    def _targets(self, y: np.ndarray) -> Any:
        t = self.torch.from_numpy(y)
        return t if self.row.sizes[-1] > 1 else t.to(self.torch.float32)[:, None]

    def _make_loss(self) -> Callable[[Any, Any], Any]:
        from torch.nn import functional

        net = self.net
        criterion = (
            functional.cross_entropy
            if self.row.sizes[-1] > 1
            else functional.binary_cross_entropy_with_logits
        )

        def loss(x: Any, y: Any) -> Any:
            return criterion(net(x), y)

        return loss

    def reset(self) -> None:
        with self.torch.no_grad():
            for p, value in zip(self.params, self._initial, strict=True):
                p.copy_(value)
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    if self.torch.is_tensor(tensor):
                        tensor.zero_()
        self._next = cycle(self._batches)

    def run(self, n: int) -> None:
        loss, optimizer = self._loss, self.optimizer
        for x, y in islice(self._next, n):
            optimizer.zero_grad(set_to_none=True)
            loss(x, y).backward()
            optimizer.step()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self.net(self.torch.from_numpy(x)).numpy()

    def predict(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self.net(self.torch.from_numpy(x)).argmax(1).numpy()

    def epoch(self) -> float:
        total = self.torch.zeros(())
        for index in self.torch.randperm(len(self._x)).split(self.row.batch):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._x[index], self._y[index])
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / self.problem.n_batches


class TorchCompile(Torch):
    """PyTorch with `torch.compile` over network and loss, forward and backward; the optimizer stays fused."""

    name = "torch.compile"

    def _make_loss(self) -> Callable[[Any, Any], Any]:
        # every row is another network: what the earlier ones compiled must not count as recompilations
        self.torch._dynamo.reset()
        return self.torch.compile(super()._make_loss(), fullgraph=True, dynamic=False)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return super().outputs(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        if not hasattr(self, "_classes"):
            self._classes = self.torch.compile(lambda t: self.net(t).argmax(1), dynamic=False)
        with self.torch.inference_mode():
            return self._classes(self.torch.from_numpy(x)).numpy()


# --- JAX --------------------------------------------------------------------------------------------
def _jax_model(one_output: bool, optimizer: str, lr: float) -> tuple[Any, Any, Any]:
    """(outputs, start, step) as pure functions of JAX."""
    import jax
    from jax import numpy as jnp

    def outputs(params: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return x @ w + b

    def loss(params: Any, x: Any, y: Any) -> Any:
        h = outputs(params, x)
        if one_output:
            return jnp.mean(jax.nn.softplus(h[:, 0]) - y * h[:, 0])
        picked = jnp.take_along_axis(h, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(h, axis=1) - picked)

    def zeros(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def start(params: Any) -> Any:
        return (
            zeros(params)
            if optimizer == "sgd"
            else (zeros(params), zeros(params), jnp.zeros((), jnp.float32))
        )

    def step(params: Any, state: Any, x: Any, y: Any, rate: Any = lr) -> tuple[Any, Any, Any]:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        if optimizer == "sgd":
            state = jax.tree.map(lambda v, g: MOMENTUM * v + g, state, grads)
            return jax.tree.map(lambda p, v: p - rate * v, params, state), state, value
        m, v, t = state
        t = t + 1.0
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        correction = jnp.sqrt(1 - BETA2**t)
        scale, eps = rate * correction / (1 - BETA1**t), EPS * correction
        params = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + eps), params, m, v)
        return params, (m, v, t), value

    return outputs, start, step


class JaxJit(Side):
    """JAX: one jitted call per step, weights and moments donated."""

    name = "jax.jit"
    needs = ("jax",)

    def __init__(self, problem: Problem):
        import jax
        from jax import numpy as jnp

        super().__init__(problem)
        self.jax, self.jnp = jax, jnp
        self._outputs, self._start, self._plain_step = _jax_model(
            self.row.sizes[-1] == 1, self.row.optimizer, self.lr
        )
        self._step = jax.jit(self._plain_step, donate_argnums=(0, 1))
        self._jit_outputs = jax.jit(self._outputs)
        self._classes = jax.jit(lambda p, x: jnp.argmax(self._outputs(p, x), axis=1))
        self._epoch_call: Any = None
        self.prepare()
        self.reset()

    def prepare(self) -> None:
        self._batches = [
            (self.jnp.asarray(x), self.jnp.asarray(y, "int32")) for x, y in self.problem.batches()
        ]

    def reset(self) -> None:
        # copies: donated buffers are given away
        self.params = [(self.jnp.array(w.T), self.jnp.array(b)) for w, b in self.problem.weights]
        self.state = self._start(self.params)
        self._next = cycle(self._batches)
        self.jax.block_until_ready((self.params, self.state))

    def run(self, n: int) -> None:
        step, params, state = self._step, self.params, self.state
        for x, y in islice(self._next, n):
            params, state, _ = step(params, state, x, y)
        self.params, self.state = self.jax.block_until_ready((params, state))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._jit_outputs(self.params, x))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._classes(self.params, x))

    def epoch(self) -> float:
        """Shuffling, gathering and all steps in one call."""
        if self._epoch_call is None:
            self._epoch_call = self._make_epoch()
            self._key = self.jax.random.key(0)
        self._key, key = self.jax.random.split(self._key)
        self.params, self.state, mean = self._epoch_call(self.params, self.state, key)
        self.jax.block_until_ready(self.params)
        return float(mean)

    def _make_epoch(self) -> Any:
        jax, jnp = self.jax, self.jnp
        x, y = jnp.asarray(self.problem.x), jnp.asarray(self.problem.y, "int32")
        steps, b = self.problem.n_batches, self.row.batch

        def epoch(params: Any, state: Any, key: Any, x: Any, y: Any) -> Any:
            order = jax.random.permutation(key, len(x))[: steps * b].reshape(steps, b)

            def body(carry: Any, rows: Any) -> Any:
                params, state, loss = self._plain_step(*carry, x[rows], y[rows])
                return (params, state), loss

            (params, state), losses = jax.lax.scan(body, (params, state), order)
            return params, state, losses.mean()

        call = jax.jit(epoch, donate_argnums=(0, 1))
        return lambda params, state, key: call(params, state, key, x, y)


class JaxScan(JaxJit):
    """JAX: `lax.scan` over several steps in one jitted call, which no data from outside can interrupt."""

    name = "jax.scan"

    def prepare(self) -> None:
        jax, jnp, size = self.jax, self.jnp, self.row.scan
        self.multiple = size
        batches = self.problem.batches()
        self._batches = [
            (
                jnp.asarray(np.stack([x for x, _ in batches[k : k + size]])),
                jnp.asarray(np.stack([y for _, y in batches[k : k + size]]), "int32"),
            )
            for k in range(0, len(batches) - size + 1, size)
        ]

        def steps(params: Any, state: Any, xs: Any, ys: Any) -> Any:
            def body(carry: Any, batch: Any) -> Any:
                params, state, loss = self._plain_step(*carry, *batch)
                return (params, state), loss

            (params, state), losses = jax.lax.scan(body, (params, state), (xs, ys))
            return params, state, losses

        self._step = jax.jit(steps, donate_argnums=(0, 1))

    def run(self, n: int) -> None:
        if n % self.multiple:
            raise ValueError(f"jax.scan takes multiples of {self.multiple} steps, not {n}")
        super().run(n // self.multiple)


# --- scikit-learn -----------------------------------------------------------------------------------
class Sklearn(Side):
    """scikit-learn's MLPClassifier on float32: its own `_backprop` and optimizer on each batch.

    That leaves out the checks of `partial_fit`, which cost more than a whole step of a small network; it is
    the loop that `fit` runs inside.
    """

    name = "sklearn"
    needs = ("sklearn",)

    def __init__(self, problem: Problem):
        from sklearn.neural_network import MLPClassifier

        super().__init__(problem)
        self.clf = MLPClassifier(
            self.row.sizes[1:-1], solver=self.row.optimizer, alpha=0.0, batch_size=self.row.batch,
            learning_rate_init=self.lr, momentum=MOMENTUM, nesterovs_momentum=False, beta_1=BETA1,
            beta_2=BETA2, epsilon=EPS, shuffle=True, random_state=0, tol=0.0,
        )  # fmt: skip
        classes = np.arange(max(self.row.sizes[-1], 2))
        first = slice(0, self.row.batch)
        self.clf.partial_fit(problem.x[first], problem.y[first], classes=classes)
        encode = self.clf._label_binarizer.transform
        self._batches = [(x, encode(y).astype(bool)) for x, y in problem.batches()]
        self._optimizer_kind = type(self.clf._optimizer)
        self.reset()

    def reset(self) -> None:
        clf, row = self.clf, self.row
        clf.coefs_ = [np.array(w.T, order="C") for w, _ in self.problem.weights]  # copies, also of one unit
        clf.intercepts_ = [b.copy() for _, b in self.problem.weights]
        self._params = clf.coefs_ + clf.intercepts_
        self._work = (
            [None] * len(row.sizes), [None] * (len(row.sizes) - 1),
            [np.empty_like(w) for w in clf.coefs_], [np.empty_like(b) for b in clf.intercepts_],
        )  # fmt: skip
        if row.optimizer == "sgd":
            clf._optimizer = self._optimizer_kind(self._params, self.lr, "constant", MOMENTUM, False)
        else:
            clf._optimizer = self._optimizer_kind(self._params, self.lr, BETA1, BETA2, EPS)
        self._next = cycle(self._batches)

    def run(self, n: int) -> None:
        activations, deltas, coef_grads, intercept_grads = self._work
        params, backprop, update = self._params, self.clf._backprop, self.clf._optimizer.update_params
        for x, y in islice(self._next, n):
            activations[0] = x
            _, coef_grads, intercept_grads = backprop(
                x, y, None, activations, deltas, coef_grads, intercept_grads
            )
            update(params, coef_grads + intercept_grads)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        p = self.clf._forward_pass_fast(x, check_input=False)
        if self.row.sizes[-1] > 1:
            return np.log(np.maximum(p, 1e-30))
        return np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(1.0 - p, 1e-30))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.clf.predict(x)

    def epoch(self) -> float:
        self.clf.partial_fit(self.problem.x, self.problem.y)
        return self.clf.loss_


# --- Keras ------------------------------------------------------------------------------------------
class Keras(Side):
    """Keras 3 (on JAX unless KERAS_BACKEND says otherwise): `train_on_batch`, compiled."""

    name = "keras"
    needs = ("keras",)

    def __init__(self, problem: Problem):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        super().__init__(problem)
        sizes = self.row.sizes
        self.net = keras.Sequential(
            [
                keras.Input((sizes[0],)),
                *(keras.layers.Dense(n, activation="relu") for n in sizes[1:-1]),
                keras.layers.Dense(sizes[-1]),
            ]
        )
        optimizer = (
            keras.optimizers.SGD(self.lr, momentum=MOMENTUM)
            if self.row.optimizer == "sgd"
            else keras.optimizers.Adam(self.lr, BETA1, BETA2, EPS)
        )
        loss = (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if sizes[-1] > 1
            else keras.losses.BinaryCrossentropy(from_logits=True)
        )
        self.net.compile(optimizer, loss, jit_compile=True)
        optimizer.build(self.net.trainable_variables)
        self._start = [np.array(v) for v in optimizer.variables]
        self._batches = [(x, self._targets(y)) for x, y in problem.batches()]
        self.reset()

    def _targets(self, y: np.ndarray) -> np.ndarray:
        return y.astype("int32") if self.row.sizes[-1] > 1 else y.astype("float32")[:, None]

    @classmethod
    def missing(cls) -> str | None:
        backend = os.environ.get("KERAS_BACKEND", "jax")
        needed = {"jax": "jax", "torch": "torch", "tensorflow": "tensorflow"}.get(backend, backend)
        reason = super().missing()
        if reason is None and importlib.util.find_spec(needed) is None:
            reason = f"{needed}, the back end of Keras, not installed"
        return reason

    def reset(self) -> None:
        self.net.set_weights([v for w, b in self.problem.weights for v in (w.T, b)])
        for variable, value in zip(self.net.optimizer.variables, self._start, strict=True):
            variable.assign(value)
        self._next = cycle(self._batches)

    def run(self, n: int) -> None:
        step = self.net.train_on_batch
        for x, y in islice(self._next, n):
            loss = step(x, y)
        float(loss)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.net.predict_on_batch(x))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.argmax(self.net.predict_on_batch(x), axis=1)

    def epoch(self) -> float:
        history = self.net.fit(
            self.problem.x, self._targets(self.problem.y), batch_size=self.row.batch, epochs=1, verbose=0
        )
        return history.history["loss"][-1]


SIDES: dict[str, type[Side]] = {
    side.name: side
    for side in (
        Xpnet,
        XpnetNumba,
        XpnetReference,
        XpnetCuda,
        Floor,
        Torch,
        TorchCompile,
        JaxJit,
        JaxScan,
        Sklearn,
        Keras,
    )
}


def present(names: list[str] | None = None) -> tuple[list[type[Side]], dict[str, str]]:
    """The sides that can run here, and why the others cannot.

    Raises
    ------
    ValueError
        A name that no side has.
    """
    unknown = [name for name in names or () if name not in SIDES]
    if unknown:
        raise ValueError(f"no side is called {unknown[0]!r}; expected one of {', '.join(SIDES)}")
    found, skipped = [], {}
    for name in names or SIDES:
        reason = SIDES[name].missing()
        if reason is None:
            found.append(SIDES[name])
        else:
            skipped[name] = reason
    return found, skipped
