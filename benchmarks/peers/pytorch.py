"""PyTorch: eager, and by `torch.compile`."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import numpy as np

from ..grid import BETA1, BETA2, EPS, MOMENTUM
from ..problem import Problem
from .side import Side


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
