"""The sides of `cases`, each as its library's experts would write it for small networks: no work on the host per step.

Every side works on the CPU too (for `device="cpu"`), where only its results are of interest.
"""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar

import numpy as np

from .cases import BETA1, BETA2, EPS, LR, Problem
from .timing import blocks, captured


class Side:
    """Base: weights and data on the device when it is made."""

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    #: `run` takes multiples of it.
    multiple = 1

    def __init__(self, problem: Problem, device: str = "cuda"):
        self.problem, self.case, self.device = problem, problem.case, device
        self.steps = len(problem.x) // problem.case.batch

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run here."""
        return (
            f"{cls.needs} not installed"
            if cls.needs and importlib.util.find_spec(cls.needs) is None
            else None
        )

    def reset(self) -> None:
        """Go back to the initial weights, moments and batch."""
        raise NotImplementedError

    def run(self, n: int) -> None:
        """Train on the next n batches, and wait."""
        raise NotImplementedError

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """What the last layer gives for uint8 samples."""
        raise NotImplementedError

    def more(self) -> dict[str, Any]:
        """Other things worth telling."""
        return {}


class Xpnet(Side):
    """All batches at once, as `Trainer` tells a device; beside it whole epochs of `Trainer.run` on 60,000 samples."""

    name = "xpnet"

    def __init__(self, problem: Problem, device: str = "cuda", *, autotune: bool = False):
        import xpnet

        super().__init__(problem, device)
        case = problem.case
        precision = case.precision if device.startswith("cuda") else "float32"
        self.be = xpnet.get_backend(device, precision=precision, autotune=autotune)
        self.model = xpnet.MLP(
            case.sizes, activation="relu", init="zeros", device=self.be, n_models=case.n_models
        )
        self.model.preprocessing = xpnet.data.Preprocessing((case.sizes[0],), problem.scale)
        self._initial = {
            f"layers.{k}.{kind}": values
            for k, pair in enumerate(problem.weights)
            for kind, values in zip(("weight", "bias"), pair, strict=True)
        }
        self.trainer = self._trainer(problem.x, problem.y)
        self.multiple = self.steps
        order = np.arange(self.steps * case.batch).reshape(self.steps, case.batch)
        self._rows = self.be.asarray(order)
        self.reset()

    def _trainer(self, x: np.ndarray, y: np.ndarray) -> Any:
        import xpnet

        adam = xpnet.Adam(lr=LR, beta1=BETA1, beta2=BETA2, eps=EPS)
        return xpnet.Trainer(self.model, (x, y), optimizer=adam, batch_size=self.case.batch, epochs=0)

    def reset(self) -> None:
        self.model.set_weights(self._initial)
        for moment in self.trainer.step.update.moments.values():
            moment[...] = 0.0
        self.trainer.step.n_updates = 0

    def run(self, n: int) -> None:
        for _ in range(n // self.multiple):
            self.trainer.step.several(self._rows, [1.0] * self.steps)
        self.be.synchronize()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return self.model.outputs(x)

    def graphs(self) -> dict[str, Any]:
        """Whether a step, and all steps of a call, are graphs, and the launches of one; on a device they have to be."""
        step, batch = self.trainer.step, self.case.batch
        one, whole = step.ahead(batch), step.ahead(batch, whole=True)
        found = {"captured": captured(one), "captured_all": captured(whole)}
        if captured(one):
            found["nodes"] = len(one.record)
        if self.device.startswith("cuda"):
            found["ok"] = captured(one) and captured(whole)
        return found

    def more(self) -> dict[str, Any]:
        """Microseconds per step of whole epochs: shuffling, the checks and the record of each epoch included."""
        found = self.graphs() | ({"algorithms": self.be.algorithms} if self.be.algorithms else {})
        return found | self._epochs()

    def _epochs(self) -> dict[str, Any]:
        if self.case.sizes[0] != 784:
            return {}
        n = 60_000
        x = np.resize(self.problem.x, (n, self.case.sizes[0]))
        trainer = self._trainer(x, np.resize(self.problem.y, n))

        def run(k: int) -> None:
            trainer.epochs += k
            trainer.run()

        run(1)
        found = blocks(run, budget=2.0)
        return {"epoch_us": found["us"], "us_in_epochs": found["us"] / trainer.steps_per_epoch}


class Torch(Side):
    """PyTorch, eager, with a fused Adam; layers of a population are batched products."""

    name = "torch"
    needs = "torch"

    def __init__(self, problem: Problem, device: str = "cuda"):
        import torch

        super().__init__(problem, device)
        self.torch = torch
        case = problem.case
        torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
        self._initial = [torch.from_numpy(v).to(device) for pair in problem.weights for v in pair]
        self.params = [v.clone().requires_grad_() for v in self._initial]
        self.x = torch.from_numpy(problem.x).to(device)
        self.y = torch.from_numpy(problem.y).to(device)
        self.order = torch.arange(len(problem.x), device=device)
        self.optimizer = torch.optim.Adam(
            self.params,
            lr=LR,
            betas=(BETA1, BETA2),
            eps=EPS,
            fused=True,
            capturable=device.startswith("cuda"),
        )
        self._k = 0
        self.prepare()

    def prepare(self) -> None:
        """Compile or capture, where the side does."""

    def forward(self, x: Any) -> Any:
        """Outputs (..., B, C) for uint8 rows (B, I)."""
        torch = self.torch
        # bf16: products of rounded operands, as autocast does; all else stays float32
        small = (
            torch.bfloat16
            if self.case.precision == "bf16" and self.device.startswith("cuda")
            else torch.float32
        )
        h = x.to(torch.float32) * self.problem.scale
        last = len(self.params) // 2 - 1
        for k in range(last + 1):
            w, b = self.params[2 * k], self.params[2 * k + 1]
            if w.ndim == 2:
                h = torch.nn.functional.linear(h.to(small), w.to(small), b.to(small))
            else:
                h = torch.matmul(h.to(small), w.to(small).transpose(-1, -2)) + b[:, None, :].to(small)
            h = h if k == last else torch.relu(h)
        return h.to(torch.float32)

    def loss(self, rows: Any) -> Any:
        """The mean over the batch, summed over models, of which each has gradients of its own."""
        functional = self.torch.nn.functional
        h, y = self.forward(self.x[rows]), self.y[rows]
        if h.ndim == 2:
            return functional.cross_entropy(h, y)
        m = h.shape[0]
        return functional.cross_entropy(h.flatten(0, 1), y.repeat(m)) * m

    def step(self, rows: Any) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(rows).backward()
        self.optimizer.step()

    def reset(self) -> None:
        with self.torch.no_grad():
            for p, value in zip(self.params, self._initial, strict=True):
                p.copy_(value)
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
        self._k = 0

    def run(self, n: int) -> None:
        b = self.case.batch
        for _ in range(n):
            self.step(self.order[self._k * b : (self._k + 1) * b])
            self._k = (self._k + 1) % self.steps
        self.wait()

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.startswith("cuda"):
            self.torch.cuda.synchronize()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            return self.forward(self.torch.from_numpy(x).to(self.device)).cpu().numpy()


class TorchCompile(Torch):
    """PyTorch with `torch.compile(mode="max-autotune")` over the loss, forward and backward."""

    name = "torch.compile"

    def prepare(self) -> None:
        self.torch._dynamo.reset()  # every case is another network
        mode = "max-autotune" if self.device.startswith("cuda") else "default"
        self.loss = self.torch.compile(self.loss, mode=mode, fullgraph=True, dynamic=False)  # type: ignore[method-assign]


class TorchGraph(Torch):
    """PyTorch with all steps over the batches, optimizer included, in one CUDA graph."""

    name = "torch.graph"

    def prepare(self) -> None:
        torch = self.torch
        self.multiple = self.steps
        b = self.case.batch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(self.order[:b])
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for k in range(self.steps):
                self.step(self.order[k * b : (k + 1) * b])
        self.reset()

    def run(self, n: int) -> None:
        for _ in range(n // self.multiple):
            self._graph.replay()
        self.wait()


class JaxScan(Side):
    """JAX: `lax.scan` over all batches in one jitted call, donated buffers; `vmap` over the models of a population."""

    name = "jax.scan"
    needs = "jax"

    def __init__(self, problem: Problem, device: str = "cuda"):
        import jax
        from jax import numpy as jnp

        super().__init__(problem, device)
        self.jax, self.jnp = jax, jnp
        self.multiple = self.steps
        precision = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "default"}[self.case.precision]
        jax.config.update("jax_default_matmul_precision", precision)
        self.x, self.y = jnp.asarray(problem.x), jnp.asarray(problem.y, "int32")
        self.order = jnp.arange(self.steps * self.case.batch).reshape(self.steps, self.case.batch)
        self._outputs = jax.jit(self._forward_all)
        self._call = jax.jit(self._steps, donate_argnums=(0, 1))
        self.reset()

    def _forward(self, params: Any, x: Any) -> Any:
        jnp = self.jnp
        small = jnp.bfloat16 if self.case.precision == "bf16" else jnp.float32
        h = x.astype(jnp.float32) * self.problem.scale
        for k, (w, b) in enumerate(params):
            h = jnp.matmul(h.astype(small), w.astype(small)) + b.astype(small)
            h = h if k == len(params) - 1 else self.jax.nn.relu(h)
        return h.astype(jnp.float32)

    def _forward_all(self, params: Any, x: Any) -> Any:
        if self.case.n_models is None:
            return self._forward(params, x)
        return self.jax.vmap(self._forward, in_axes=(0, None))(params, x)

    def _update(self, params: Any, state: Any, x: Any, y: Any) -> Any:
        jax, jnp = self.jax, self.jnp

        def loss(params: Any) -> Any:
            h = self._forward(params, x)
            picked = jnp.take_along_axis(h, y[:, None], axis=1)[:, 0]
            return jnp.mean(jax.nn.logsumexp(h, axis=1) - picked)

        grads = jax.grad(loss)(params)
        m, v, t = state
        t = t + 1.0
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, grads)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, grads)
        correction = jnp.sqrt(1 - BETA2**t)
        rate, eps = LR * correction / (1 - BETA1**t), EPS * correction
        return jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + eps), params, m, v), (m, v, t)

    def _steps(self, params: Any, state: Any, x: Any, y: Any, order: Any) -> Any:
        population = self.case.n_models is not None
        update = self.jax.vmap(self._update, in_axes=(0, 0, None, None)) if population else self._update

        def body(carry: Any, rows: Any) -> Any:
            return update(*carry, x[rows], y[rows]), None

        return self.jax.lax.scan(body, (params, state), order)[0]

    def reset(self) -> None:
        jnp = self.jnp
        self.params = [(jnp.array(w.swapaxes(-1, -2)), jnp.array(b)) for w, b in self.problem.weights]
        zeros = [(jnp.zeros_like(w), jnp.zeros_like(b)) for w, b in self.params]
        more = [(jnp.zeros_like(w), jnp.zeros_like(b)) for w, b in self.params]
        lead = () if self.case.n_models is None else (self.case.n_models,)
        self.state = (zeros, more, jnp.zeros(lead, jnp.float32))
        self.jax.block_until_ready((self.params, self.state))

    def run(self, n: int) -> None:
        params, state = self.params, self.state
        for _ in range(n // self.multiple):
            params, state = self._call(params, state, self.x, self.y, self.order)
        self.params, self.state = self.jax.block_until_ready((params, state))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._outputs(self.params, self.jnp.asarray(x)))


SIDES: dict[str, type[Side]] = {s.name: s for s in (Xpnet, Torch, TorchCompile, TorchGraph, JaxScan)}
