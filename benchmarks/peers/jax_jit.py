"""JAX: a step by `jit`, and many steps by `lax.scan`."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import numpy as np

from ..grid import BETA1, BETA2, EPS, MOMENTUM
from ..problem import Problem
from .side import Side


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
