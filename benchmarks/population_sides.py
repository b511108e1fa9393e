"""Who trains many small networks: `fit_many`, loops of fits, joblib over scikit-learn, `vmap` of PyTorch and JAX."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from .grid import BETA1, BETA2, EPS

MEMBERS = (1, 4, 16, 64, 256)
#: Members that are really trained where a side takes them one by one; its time is scaled up.
ONE_BY_ONE = 16


@dataclass(frozen=True)
class Net:
    """A network and what it is trained on: `epochs` passes over `n` examples."""

    sizes: tuple[int, ...]
    batch: int
    n: int
    epochs: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def steps(self) -> int:
        """Updates of one member."""
        return self.epochs * (self.n // self.batch)


NETS = (Net((8, 16, 3), 32, 960, 20), Net((64, 64, 10), 32, 960, 10), Net((784, 128, 10), 128, 1280, 5))


@dataclass(frozen=True)
class Problem:
    """M members of a net, and their data."""

    net: Net
    members: int

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        g = np.random.default_rng(0)
        x = g.random((self.net.n, self.net.sizes[0]), dtype=np.float32)
        return x, (x @ g.standard_normal((self.net.sizes[0], self.net.sizes[-1]))).argmax(1)

    def rate(self, member: int) -> float:
        return 1e-3 * (1 + member % 4)

    @cached_property
    def initial(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights (M, I, O) and biases (M, O) of each layer."""
        import xpnet

        seeds = list(range(self.members))
        model = xpnet.MLP(self.net.sizes, n_models=self.members, seed=seeds)
        weights = model.get_weights()
        return [
            (np.ascontiguousarray(weights[f"layers.{i}.weight"].swapaxes(1, 2)), weights[f"layers.{i}.bias"])
            for i in range(len(self.net.sizes) - 1)
        ]

    def shapes(self) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
        """Shapes of the weights and biases of each layer, and the standard deviation of weights at the start."""
        m, sizes = self.members, self.net.sizes
        return [((m, i, o), (m, o), math.sqrt(2.0 / i)) for i, o in pairwise(sizes)]

    def order(self, epoch: int) -> np.ndarray:
        """The examples of an epoch as (steps, B)."""
        from xpnet.rng import permutation

        return permutation(self.net.n, 0, epoch).reshape(-1, self.net.batch)


class Side:
    """A way to train the members of a problem.

    Attributes
    ----------
    name : str
    needs : tuple of str
        Modules that must be installed.
    one_by_one : bool
        Whether members are trained one after the other, so that a few of them tell the time of all.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    one_by_one: ClassVar[bool] = False

    def __init__(self, problem: Problem):
        self.problem, self.net = problem, problem.net
        self.trained = min(problem.members, ONE_BY_ONE) if self.one_by_one else problem.members

    @classmethod
    def missing(cls) -> str | None:
        """Why this side cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        """Train, for fewer epochs where asked.

        Returns the mean loss of the last epoch of each member trained, where it can be compared.
        """
        raise NotImplementedError


class Population(Side):
    """`xpnet.fit_many`, blocks and threads as it chooses."""

    name = "xpnet"
    device: ClassVar[str] = "cpu"
    options: ClassVar[dict[str, Any]] = {}

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        import xpnet

        p, net = self.problem, self.net
        result = xpnet.fit_many(
            [{"seed": m, "lr": p.rate(m)} for m in range(p.members)], p.data, sizes=net.sizes,
            epochs=epochs or net.epochs, batch_size=net.batch, batches="shared", device=self.device,
            beta1=BETA1, beta2=BETA2, eps=EPS, **self.options,
        )  # fmt: skip
        return np.array([m.history[-1]["train_loss"] for m in result])


class PopulationNumba(Population):
    """The same with compiled formulas."""

    name = "xpnet.numba"
    needs = ("numba",)
    device = "numba"


class OneWorker(Population):
    """`fit_many` with one thread, where others may have more."""

    name = "one worker"
    options: ClassVar[dict[str, Any]] = {"workers": 1, "threads": 1}


class OneWorkerNumba(OneWorker):
    """The same with compiled formulas."""

    name = "one worker.numba"
    needs = ("numba",)
    device = "numba"


class Loop(Side):
    """A Python loop of `xpnet.fit`."""

    name = "loop"
    one_by_one = True
    device: ClassVar[str] = "cpu"

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        import xpnet

        p, net, losses = self.problem, self.net, []
        for m in range(self.trained):
            model = xpnet.MLP(net.sizes, seed=m, device=self.device)
            adam = xpnet.Adam(lr=p.rate(m), beta1=BETA1, beta2=BETA2, eps=EPS)
            history = xpnet.fit(
                model, p.data, optimizer=adam, epochs=epochs or net.epochs, batch_size=net.batch, seed=0
            )
            losses.append(history[-1]["train_loss"])
        return np.array(losses)


class LoopNumba(Loop):
    """The same with compiled formulas."""

    name = "loop.numba"
    needs = ("numba",)
    device = "numba"


class Sklearn(Side):
    """joblib over `MLPClassifier.fit`, one process per processor; its weights and orders are its own."""

    name = "sklearn"
    needs = ("sklearn", "joblib")
    one_by_one = True

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        from joblib import Parallel, delayed

        n_jobs = int(os.environ.get("OMP_NUM_THREADS", "1"))
        net = self.problem.net
        # plain values: what this module defines cannot be sent to another process while it is the main program
        settings = {
            "hidden_layer_sizes": net.sizes[1:-1], "alpha": 0.0, "batch_size": net.batch, "max_iter": net.epochs,
            "tol": 0.0, "n_iter_no_change": net.epochs + 1,
        }  # fmt: skip
        Parallel(n_jobs=n_jobs)(
            delayed(_sklearn_fit)(
                self.problem.data, settings | {"learning_rate_init": self.problem.rate(m), "random_state": m}
            )
            for m in range(self.trained)
        )
        return None


def _sklearn_fit(data: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    import warnings

    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MLPClassifier(**settings).fit(*data)


class TorchVmap(Side):
    """PyTorch: `vmap` of `grad_and_value` over stacked weights, Adam on the stacks."""

    name = "torch.vmap"
    needs = ("torch",)

    def __init__(self, problem: Problem):
        import torch
        from torch.func import grad_and_value, vmap
        from torch.nn import functional

        super().__init__(problem)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch = torch

        def loss(params: list[Any], x: Any, y: Any) -> Any:
            for i in range(0, len(params), 2):
                x = x @ params[i] + params[i + 1]
                x = torch.relu(x) if i + 2 < len(params) else x
            return functional.cross_entropy(x, y)

        self._step = vmap(grad_and_value(loss), in_dims=(0, None, None))
        x, y = problem.data
        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        torch, p = self.torch, self.problem
        if epochs is None:
            params = [
                v for pair in p.shapes() for v in (torch.randn(pair[0]) * pair[2], torch.zeros(pair[1]))
            ]
        else:  # a check
            params = [torch.tensor(v) for pair in p.initial for v in pair]
        mean, square = ([torch.zeros_like(w) for w in params] for _ in range(2))
        lr = torch.tensor([p.rate(m) for m in range(p.members)])
        rates = [lr.reshape(-1, *(1,) * (w.ndim - 1)) for w in params]
        step, total = 0, torch.zeros(p.members)
        for epoch in range(epochs or self.net.epochs):
            total = torch.zeros(p.members)
            for rows in torch.from_numpy(p.order(epoch)):
                grads, losses = self._step(params, self._x[rows], self._y[rows])
                total += losses
                step += 1
                correction = math.sqrt(1.0 - BETA2**step)
                scale = correction / (1.0 - BETA1**step)
                torch._foreach_lerp_(mean, grads, 1.0 - BETA1)
                torch._foreach_mul_(square, BETA2)
                torch._foreach_addcmul_(square, grads, grads, 1.0 - BETA2)
                below = torch._foreach_sqrt(square)
                torch._foreach_add_(below, EPS * correction)
                change = torch._foreach_mul(mean, rates)
                torch._foreach_addcdiv_(params, change, below, -scale)
        for w in params:
            w.numpy()
        return (total / len(p.order(0))).numpy()


class JaxVmap(Side):
    """JAX: one `jit` of a `vmap` over members of a `scan` over the batches of an epoch, weights and moments donated."""

    name = "jax.vmap"
    needs = ("jax",)

    def __init__(self, problem: Problem):
        import jax
        from jax import numpy as jnp

        super().__init__(problem)
        self.jax = jax

        def loss(params: Any, x: Any, y: Any) -> Any:
            for w, b in params[:-1]:
                x = jax.nn.relu(x @ w + b)
            h = x @ params[-1][0] + params[-1][1]
            picked = jnp.take_along_axis(h, y[:, None], axis=1)[:, 0]
            return jnp.mean(jax.nn.logsumexp(h, axis=1) - picked)

        def epoch(params: Any, state: Any, lr: Any, x: Any, y: Any, order: Any) -> Any:
            def step(carry: Any, rows: Any) -> Any:
                params, (mean, square, t) = carry
                value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
                t = t + 1
                mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, grads)
                square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, square, grads)
                correction = jnp.sqrt(1 - BETA2**t)
                rate, eps = lr * correction / (1 - BETA1**t), EPS * correction
                params = jax.tree.map(
                    lambda w, m, v: w - rate * (m / (jnp.sqrt(v) + eps)), params, mean, square
                )
                return (params, (mean, square, t)), value

            (params, state), losses = jax.lax.scan(step, (params, state), order)
            return params, state, losses.mean()

        def draw(key: Any) -> Any:
            keys = jax.random.split(key, len(self.net.sizes) - 1)
            each = zip(keys, problem.shapes(), strict=True)
            return [(jax.random.normal(k, w) * scale, jnp.zeros(b)) for k, (w, b, scale) in each]

        self._draw = jax.jit(draw)
        each = jax.vmap(epoch, in_axes=(0, 0, 0, None, None, None))
        self._epoch = jax.jit(each, donate_argnums=(0, 1))
        self._x, self._y = (jnp.asarray(v) for v in problem.data)

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        from jax import numpy as jnp

        jax, p = self.jax, self.problem
        if epochs is None:
            params = self._draw(jax.random.key(0))
        else:  # a check
            params = [(jnp.array(w), jnp.array(b)) for w, b in p.initial]
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        state = (*zeros, jnp.zeros(p.members))
        lr = jnp.asarray([p.rate(m) for m in range(p.members)], jnp.float32)
        losses = None
        for epoch in range(epochs or self.net.epochs):
            order = jnp.asarray(p.order(epoch))
            params, state, losses = self._epoch(params, state, lr, self._x, self._y, order)
        jax.tree.map(np.asarray, params)
        return np.asarray(losses)


SIDES = {
    side.name: side
    for side in (
        Population,
        PopulationNumba,
        OneWorker,
        OneWorkerNumba,
        Loop,
        LoopNumba,
        Sklearn,
        TorchVmap,
        JaxVmap,
    )
}
