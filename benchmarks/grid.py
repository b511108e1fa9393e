"""What is measured, and what it should come to.

A `Row` is one network, batch size and optimizer. A `Goal` is a ratio that a row should reach; which goals a row
has is written in `goals`, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Steps after which all sides of a row must have the same loss.
CHECK_STEPS = 20
#: Relative difference of that loss which float32 may cause: sums in another order, twenty times over.
LOSS_TOLERANCE = 1e-3

MOMENTUM = 0.9
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Row:
    """One network with its batch size and optimizer; float32, ReLU, no penalty.

    Parameters
    ----------
    group : {"small", "mnist", "wide", "ciresan"}
    sizes : tuple of int
        Widths; one output means binary cross-entropy, more mean softmax cross-entropy.
    batch : int
    optimizer : {"sgd", "adam"}
        "sgd" has a momentum of 0.9.
    """

    group: str
    sizes: tuple[int, ...]
    batch: int
    optimizer: str

    @property
    def net(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def name(self) -> str:
        return f"{self.net} b{self.batch} {self.optimizer}"

    @property
    def lr(self) -> float:
        """Small enough that rounding does not grow: five hidden layers under Adam are chaotic at 1e-3, and at 1e-4 a
        thousandth apart after 20 steps where sums are in another order.
        """
        if self.optimizer == "sgd":
            return 0.02
        return 1e-3 if len(self.sizes) < 6 else 5e-5

    @property
    def n_weights(self) -> int:
        return sum(i * o for i, o in zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def flops(self) -> float:
        """Floating-point operations of the matmuls of one step; the first layer needs no input gradient."""
        return 2.0 * self.batch * (3 * self.n_weights - self.sizes[0] * self.sizes[1])

    @property
    def scan(self) -> int:
        """Steps in one call of `lax.scan`; a divisor of `CHECK_STEPS`."""
        return CHECK_STEPS if self.flops < 2e9 else 5


_NETS: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
    ("small", (64, 64, 10), (32,)),
    ("small", (30, 100, 100, 1), (64,)),
    ("mnist", (784, 128, 10), (32, 128, 1024)),
    ("mnist", (784, 500, 10), (32, 128, 1024)),
    ("wide", (784, 1024, 1024, 10), (256,)),
    ("ciresan", (784, 2500, 2000, 1500, 1000, 500, 10), (256,)),
]

ROWS: tuple[Row, ...] = tuple(
    Row(group, sizes, batch, optimizer)
    for group, sizes, batches in _NETS
    for batch in batches
    for optimizer in ("sgd", "adam")
)
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))

#: The row whose network, batch and optimizer also serve the epoch, prediction and memory benchmarks.
MAIN = next(row for row in ROWS if row.name == "784-500-10 b128 adam")
EPOCH_ROWS = tuple(row for row in ROWS if row.net == "784-500-10" and row.batch == 128)
PREDICT_ROWS = tuple(row for row in ROWS if row.name in ("64-64-10 b32 adam", MAIN.name))
PREDICT_SIZES = (1, 10_000)
EPOCH_STEPS = 100

#: xpnet on its back ends for the CPU: NumPy alone, and with the extra `numba`. Goals are judged for each.
VARIANTS = ("xpnet", "xpnet.numba")
#: Networks that all libraries train; which of them are present differs from machine to machine.
PEERS = ("torch", "torch.compile", "jax.jit", "jax.scan", "sklearn", "keras")


@dataclass(frozen=True)
class Goal:
    """A ratio between two sides.

    Parameters
    ----------
    text : str
        For people.
    over, under : str
        The ratio is the time of side `over` divided by that of side `under`; ``"peers"`` is the fastest peer,
        ``"xpnet"`` the variant that is judged.
    limit : float
    at_least : bool
        Whether the ratio should be at least the limit, or at most.
    """

    text: str
    over: str
    under: str
    limit: float
    at_least: bool

    def met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


def times_faster(peer: str, limit: float) -> Goal:
    """xpnet should be `limit` times faster than `peer`."""
    if peer == "peers":
        return Goal(f"fastest peer / xpnet >= {limit:g}", peer, "xpnet", limit, True)
    return Goal(f"{peer} / xpnet >= {limit:g}", peer, "xpnet", limit, True)


def within(other: str, limit: float) -> Goal:
    """xpnet should take at most `limit` times as long as `other`."""
    return Goal(f"xpnet / {other} <= {limit:g}", "xpnet", other, limit, False)


def goals(row: Row) -> list[Goal]:
    """The goals of one training step of `row`, at one thread and at all."""
    result = [times_faster("peers", 1.0)]
    if row.group == "small":
        result += [times_faster("torch", 5.0), times_faster("sklearn", 4.0), times_faster("jax.jit", 1.3)]
    if row.net == "784-500-10" and row.batch == 128:
        result += [
            within("floor", {"sgd": 1.10, "adam": 1.20}[row.optimizer]),
            times_faster("sklearn", 3.0),
        ]
    if row.group == "ciresan":
        result += [within("floor", {"sgd": 1.10, "adam": 1.25}[row.optimizer])]
    return result


def find_rows(words: list[str]) -> list[Row]:
    """Rows of the given groups, or whose name contains a given word; all rows for no words.

    Raises
    ------
    ValueError
        A word selects nothing.
    """
    chosen = []
    for word in words or ["all"]:
        found = [r for r in ROWS if word in ("all", r.group) or (word not in GROUPS and word in r.name)]
        if not found:
            raise ValueError(f"no row is called {word!r}; groups: {', '.join(GROUPS)}; rows: "
                             + "; ".join(r.name for r in ROWS))  # fmt: skip
        chosen += [r for r in found if r not in chosen]
    return chosen
