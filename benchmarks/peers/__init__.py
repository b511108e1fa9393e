"""The sides that are compared, by name."""

from __future__ import annotations

from .floor import Floor
from .jax_jit import JaxJit, JaxScan
from .keras_fit import Keras
from .ours import Xpnet, XpnetCuda, XpnetNumba, XpnetReference
from .pytorch import Torch, TorchCompile
from .scikit_learn import Sklearn
from .side import Side

__all__ = [
    "SIDES", "Floor", "JaxJit", "JaxScan", "Keras", "Side", "Sklearn", "Torch", "TorchCompile", "Xpnet", "XpnetCuda",
    "XpnetNumba", "XpnetReference", "present",
]  # fmt: skip

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
