"""A network with layers of somebody's own, which exports and readers must not take for the usual ones."""

from __future__ import annotations

from xpnet import MLP
from xpnet.layers import Dense


class _Halved(Dense):
    def forward(self, x, c):
        return super().forward(0.5 * x, c)


class _Own(MLP):
    def make_layers(self):
        first, *others = super().make_layers()
        return [_Halved(first.n_in, first.n_out, first.activation, "glorot_uniform"), *others]
