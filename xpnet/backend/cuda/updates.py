"""Formulas that begin where another kernel has a number: the update of a parameter where its gradient is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .. import Array
from ..program import Program
from . import formulas
from .formulas import C_TYPES

#: Numbers of each vector that a thread reads before it writes any; more would not stay in registers.
AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class Update:
    """A formula of vectors as long as a kernel's result, one of which is that result.

    Attributes
    ----------
    program : Program
    args : sequence of array
        (N,) vectors, or single numbers.
    outs : sequence of array
        (N,) each.
    result : sequence of bool
        Which of `args` are the kernel's result.
    """

    program: Program
    args: Sequence[Array]
    outs: Sequence[Array]
    result: Sequence[bool]

    @property
    def arrays(self) -> list[Array]:
        """What the kernel takes for it."""
        return [*(a for a, own in zip(self.args, self.result, strict=True) if not own), *self.outs]

    @cached_property
    def _pieces(self) -> dict[str, str]:
        types = [C_TYPES[str(a.dtype)] for a in (*self.args, *self.outs)]
        parameters, numbers, memory, reads, given = [], [], [], [], []
        for k, (arg, own) in enumerate(zip(self.args, self.result, strict=True)):
            if own:
                given.append("value")
                continue
            parameters.append(f", const {types[k]}* u{k}")
            if arg.size == 1:
                numbers.append(f"const {types[k]} n{k} = u{k}[0];")
                given.append(f"n{k}")
            else:
                memory.append(f"{types[k]} r{k}[{AT_ONCE}];")
                reads.append(f"r{k}[u] = u{k}[at];")
                given.append(f"r{k}[u]")
        made = []
        for k, kind in enumerate(types[len(self.args) :]):
            parameters.append(f", {kind}* o{k}")
            made.append((f"{kind} y{k};", f"o{k}[at] = y{k};"))
        given += [f"y{k}" for k in range(len(made))]
        call = f"update({', '.join(given)});"
        lines = " ".join([*(declared for declared, _ in made), call, *(written for _, written in made)])
        return {
            "UPDATE_PARAMETERS": "".join(parameters), "UPDATE_NUMBERS": " ".join(numbers),
            "UPDATE_MEMORY": " ".join(memory), "UPDATE_READS": " ".join(reads), "UPDATE": f"{{ {lines} }}",
        }  # fmt: skip

    @cached_property
    def _formula(self) -> str:
        args, outs = ([str(a.dtype) for a in arrays] for arrays in (self.args, self.outs))
        return formulas.formula(self.program, args, outs, "update")

    @property
    def key(self) -> str:
        """What tells its source from others'."""
        text = self._formula + "".join(self._pieces.values())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def within(self, text: str) -> str:
        """The source of a kernel that has a `value` for place `at`, number `u` of a few, with the update behind it."""
        for word, piece in self._pieces.items():
            text = text.replace(word, piece)
        return self._formula + text


def without(text: str) -> str:
    """The source of such a kernel with no update."""
    for word in ("UPDATE_PARAMETERS", "UPDATE_NUMBERS", "UPDATE_MEMORY", "UPDATE_READS", "UPDATE"):
        text = text.replace(word, "")
    return text
