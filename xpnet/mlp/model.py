"""MLP: layers in order, one flat buffer of weights, one model or a population of M."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from typing import Any

import numpy as np

from .. import checkpoint
from ..activations import Activation
from ..backend import Array, Backend, Origin, get_backend
from ..data.arrays import as_real, check_finite, rectangular
from ..errors import ConfigError, DataError, DeviceError, FileFormatError, explained
from ..init import draw
from ..interchange import arrive, astype, follow, is_foreign, kind, namespace, to_host
from ..layers import Context, Layer
from ..losses import NAMES, Loss, get_loss
from ..memory import check_parameters
from ..params import ParameterLayout, ParamSpec
from ..workspace import Workspace
from . import answers, architecture
from .inference import Inference
from .meaning import Meaning

DTYPES = ("float32", "float64")


_WIDTHS = "sizes has all widths from input to output: MLP([4, 8, 2])"
_HINTS = {
    **dict.fromkeys(("hidden", "hidden_layer_sizes", "hidden_sizes", "layers", "inputs", "outputs"), _WIDTHS),
    "loss": "losses, optimizers and rates belong to fit", "lr": "losses, optimizers and rates belong to fit",
    "optimizer": "losses, optimizers and rates belong to fit", "random_state": "it is called seed here",
}  # fmt: skip


class MLP(Meaning):
    """A multilayer perceptron, or a population of `n_models` with one architecture.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output: ``[784, 500, 10]``. ``[784, 10]`` is a linear model.
    activation : str, Activation or a sequence of them, default "relu"
        Of the hidden layers, one for all or one each: a name of `xpnet.activations.NAMES`, "prelu",
        "maxout" or "maxout:k", or an `xpnet.activations.Activation` of your own.
    output_activation : str or Activation, default "identity"
        Of the last layer. Losses with softmax or sigmoid inside want "identity" (they take logits).
    dropout : float or sequence of float, default 0.0
        Share of units dropped after each hidden layer while training; one for all or one each. In a population
        the share of a layer may be a sequence of one number per member.
    input_dropout, input_noise : float, default 0.0
        Share of inputs dropped; standard deviation of Gaussian noise added to inputs, in their scaled units. In a
        population also one number per member.
    init : str, default "auto"
        Weight initialiser; "auto" is He normal for the ReLU family, LeCun for SELU, else Glorot uniform.
    bias : float, default 0.0
        Initial value of all biases.
    n_models : int, optional
        M for a population; every array of the model then has a leading axis M.
    seed : int or sequence of int, default 0
        Of the initial weights and masks. One number s gives the members s, s + 1, ...
    dtype : {"float32", "float64"}, default "float32"
    device : str, Backend or Array-API namespace, default "cpu"
        See `xpnet.backend.get_backend`.

    Raises
    ------
    ConfigError
        An impossible size, an unknown name or a number out of range.
    DeviceError
        The device cannot be used.
    OutOfMemoryError
        The parameters would not fit into the memory that is free.

    Examples
    --------
    >>> model = MLP([3, 4, 4, 1], activation="tanh")
    >>> model.n_parameters
    41
    >>> model.outputs(np.zeros((2, 3))).shape
    (2, 1)
    """

    @explained("option of MLP", positional="sizes is one list of widths: MLP([4, 8, 2])", hints=_HINTS)
    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        dropout: float | Sequence[float] | Sequence[Sequence[float]] = 0.0,
        input_dropout: float | Sequence[float] = 0.0,
        input_noise: float | Sequence[float] = 0.0,
        init: str = "auto",
        bias: float = 0.0,
        n_models: int | None = None,
        seed: int | Sequence[int] = 0,
        dtype: str = "float32",
        device: str | Backend | Any = "cpu",
    ):
        super().__init__()
        self.n_models = architecture.member_count(n_models)
        self.architecture = architecture.checked(
            sizes, self.n_models, activation=activation, output_activation=output_activation, dropout=dropout,
            input_dropout=input_dropout, input_noise=input_noise, init=init, bias=bias,
        )  # fmt: skip
        #: Activations that are none of xpnet's, by the names that `architecture` has for them.
        self.own_activations = architecture.own_activations(activation, output_activation)
        self.sizes: tuple[int, ...] = tuple(self.architecture["sizes"])
        self.seeds = architecture.member_seeds(seed, self.n_models)
        dtype = dtype if isinstance(dtype, str) else _type_name(dtype)
        if dtype not in (*DTYPES, "complex128"):  # complex numbers serve the complex-step gradient check
            raise ConfigError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, found {dtype!r}")
        self.dtype = dtype
        self.be = get_backend(device)
        self.layers = architecture.checked_layers(self.make_layers(), self.sizes)
        specs = [
            ParamSpec(f"layers.{i}.{s.name}", s.shape, s.fan_in, s.fan_out, s.init, s.decayed)
            for i, layer in enumerate(self.layers)
            for s in layer.specs()
        ]
        self.layout = ParameterLayout(specs, self.n_models)
        check_parameters(self.sizes, self.layout.size, dtype, self.be)
        self.weights = self.be.empty((self.layout.size,), dtype)
        self.params = self.layout.views(self.be, self.weights)
        self.reset()
        self._inference = Inference()
        self._known_loss: tuple[str | None, Loss] | None = None

    def make_layers(self) -> list[Layer]:
        """Return the layers in order; a subclass may have others, see `xpnet.layers.Layer`."""
        return architecture.layers(self._settings())

    def _settings(self) -> dict[str, Any]:
        """The architecture as the constructor takes it."""
        return architecture.with_objects(self.architecture, self.own_activations)

    # --- parameters -----------------------------------------------------------------------------
    @property
    def n_parameters(self) -> int:
        """Learnable numbers of one model."""
        return self.layout.per_model

    @property
    def lead(self) -> tuple[int, ...]:
        """(M,) for a population, () for a single model."""
        return self.layout.lead

    def reset(self) -> None:
        """Draw the initial weights again from the seeds; drawn on the host, so every back end starts the same."""
        host = np.empty(self.layout.size)
        views = self.layout.views(get_backend("cpu"), host)
        for index, spec in enumerate(self.layout.specs):
            for m, seed in enumerate(self.seeds):
                target = views[spec.name] if self.n_models is None else views[spec.name][m]
                target[...] = draw(spec, seed, index)
        self.weights[...] = self.be.asarray(host.astype(_drawn_dtype(self.dtype)), self.dtype)

    def get_weights(self) -> dict[str, np.ndarray]:
        """Copies of all parameters on the host, by name: ``layers.0.weight`` (..., O, I), ``layers.0.bias``."""
        return {name: np.array(self.be.to_numpy(view)) for name, view in self.params.items()}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Replace all parameters, given by name as `get_weights` returns them.

        Parameters
        ----------
        weights : mapping of str to array_like

        Raises
        ------
        DataError
            A number is not finite, or something is no number.
        FileFormatError
            Names or shapes are those of another architecture.

        Examples
        --------
        A perceptron, by hand:

        >>> neuron = MLP([3, 1], output_activation="step")
        >>> neuron.set_weights({"layers.0.weight": [[6.0, 2.0, 2.0]], "layers.0.bias": [-5.0]})
        >>> neuron.outputs([[0, 1, 1], [1, 0, 0]]).tolist()
        [[0.0], [1.0]]
        """
        found = {name: as_real(to_host(values, name), name) for name, values in weights.items()}
        for name, values in found.items():
            check_finite(values, name)
        self.put_weights(found)

    def put_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """`set_weights` for weights that may be those of a training that diverged: nothing says they are finite."""
        if set(weights) != set(self.params):
            raise FileFormatError(
                f"the weights are of another architecture: expected {', '.join(self.params)}; "
                f"found {', '.join(weights)}"
            )
        for name, view in self.params.items():
            if tuple(weights[name].shape) != tuple(view.shape):
                raise FileFormatError(
                    f"{name} has shape {tuple(weights[name].shape)}, but this architecture "
                    f"({'-'.join(map(str, self.sizes))}) needs {tuple(view.shape)}"
                )
            view[...] = self.be.asarray(weights[name], self.dtype)

    def to(self, device: str | Backend | Any, *, dtype: str | None = None) -> MLP:
        """Return a copy of the model on another device, or in another dtype."""
        return self._again({}, device, dtype or self.dtype)

    def with_rates(self, **rates: Any) -> MLP:
        """Return the model, or a copy of it where its rates of dropout and noise are not these.

        Parameters
        ----------
        **rates
            "dropout", "input_dropout" and "input_noise" as the constructor takes them.

        Examples
        --------
        >>> MLP([3, 4, 2]).with_rates(dropout=0.5).architecture["dropout"]
        [0.5]
        """
        other = self._again(rates, self.be, self.dtype)
        return self if other.architecture == self.architecture else other

    def _again(self, changed: Mapping[str, Any], device: Any, dtype: str) -> MLP:
        """A copy with other settings; they may not change the parameters."""
        other = type(self)(
            **{**self._settings(), **changed}, n_models=self.n_models,
            seed=self.seeds if self.n_models else self.seeds[0], dtype=dtype, device=device,
        )  # fmt: skip
        other.weights[...] = other.be.asarray(self.be.to_numpy(self.weights), other.dtype)
        other._take_over(self)
        return other

    def member(self, m: int) -> MLP:
        """Return member `m` of a population as a single model of its own."""
        if self.n_models is None:
            raise ConfigError("this is a single model; only a population (n_models=M) has members")
        if not -self.n_models <= m < self.n_models:
            raise ConfigError(f"member must be from 0 to {self.n_models - 1}, found {m}")
        own = architecture.member(self._settings(), m)
        alone = type(self)(**own, seed=self.seeds[m], dtype=self.dtype, device=self.be)
        alone.put_weights({name: self.be.to_numpy(view[m, ...]) for name, view in self.params.items()})
        alone._take_over(self)
        return alone

    def _take_over(self, other: MLP) -> None:
        """Mean by inputs and outputs what another model means."""
        vars(self).update(other.meaning())
        self._known_loss = other._known_loss

    # --- running --------------------------------------------------------------------------------
    def contexts(
        self, batch: int, make: Callable[..., Array], *, train: bool, grads: dict[str, Array] | None = None,
        counter: Any = None,
    ) -> list[Context]:  # fmt: skip
        """Return what the layers need to run on batches of `batch` samples.

        Parameters
        ----------
        batch : int
            B.
        make : callable
            ``make(key, shape, dtype)`` returns a buffer; usually `Workspace.array`.
        train : bool
            Whether dropout and noise act.
        grads : dict of Array, optional
            Where `backward` writes, by parameter name.
        counter : Array, optional
            int64 array of one element: the step that the random streams are at. For a population whose parts are
            at different steps, a list of (slice of members, such an array).
        """
        result = []
        for i, _layer in enumerate(self.layers):
            prefix = f"layers.{i}."
            own = {n.removeprefix(prefix): v for n, v in self.params.items() if n.startswith(prefix)}
            g = {n.removeprefix(prefix): v for n, v in (grads or {}).items() if n.startswith(prefix)}
            result.append(
                Context(
                    self.be,
                    own,
                    g,
                    lead=(*self.lead, batch),
                    index=i,
                    make=make,
                    train=train,
                    seeds=self.seeds,
                    counter=counter,
                    dtype=self.dtype,
                )
            )
        return result

    def forward(self, x: Array, contexts: Sequence[Context]) -> Array:
        """Return outputs h (..., B, O) of rows x (..., B, I). Only back-end operations."""
        for layer, c in zip(self.layers, contexts, strict=True):
            x = layer.forward(x, c)
        return x

    def backward(self, dh: Array, contexts: Sequence[Context]) -> None:
        """Fill the gradients from dh (..., B, O), which is overwritten. Only back-end operations.

        The gradient by the inputs of the first layer with parameters is never computed.
        """
        first = next(i for i, layer in enumerate(self.layers) if layer.specs())
        dy: Array = dh
        for i in range(len(self.layers) - 1, first - 1, -1):
            dy = self.layers[i].backward(dy, contexts[i], need_dx=i > first)

    def rows(self, x: Any) -> Any:
        """Check samples and bring them to rows (B, I) of numbers in the model's dtype.

        Samples on the model's device stay there (`xpnet.interchange.arrive`); all others become NumPy arrays.
        """
        self.check_names(x)
        x = arrive(x, self.be)
        try:
            return self._rows(x)
        except DataError as error:
            if self.tabular is None:
                raise
            raise DataError(
                f"{error}. The model takes what becomes of the columns of a table: "
                "xpnet.tabular.TabularPreprocessing.from_metadata(model.tabular).transform(table)"
            ) from None

    def _rows(self, x: Any) -> Any:
        x = x if is_foreign(x) else rectangular(x, "X")
        if self.preprocessing is not None:
            x = self.preprocessing(x, self.dtype)
        elif x.ndim > 2 and math.prod(x.shape[1:]) == self.sizes[0]:  # pictures, as `fit` takes them
            x = namespace(x).reshape(x, (x.shape[0], -1))
        shape = tuple(x.shape)
        if len(shape) != 2 or shape[1] != self.sizes[0]:
            raise DataError(
                f"expected samples of {self.sizes[0]} numbers, shape (B, {self.sizes[0]}), found shape {shape}"
            )
        if kind(x) not in "fiub":
            raise DataError(f"expected samples of real numbers, found dtype {x.dtype}")
        return astype(x, self.dtype, copy=False)

    def outputs(self, x: Any) -> Any:
        """Return what the last layer gives for samples x (B, ...), as (B, O) or (M, B, O).

        An array of PyTorch, CuPy or another Array-API library is answered in that library, on its device; everything
        else by a NumPy array. So it is with `predict`, `predict_proba` and `activations` too.
        """
        return follow(x, self._inference(self, self.rows(x)))

    def activations(self, x: Any) -> list[Any]:
        """Return what every layer gives for samples x (B, ...): the hidden layers in order, then the outputs.

        Parameters
        ----------
        x : array_like (B, ...)
            Raw samples, as `outputs` takes them.

        Returns
        -------
        list of ndarray
            One (..., B, O) per layer of `sizes` after the first, after its activation function;
            dropout and noise do not act. The last is `outputs(x)`.

        Raises
        ------
        DataError
            The samples do not fit the model.

        Examples
        --------
        >>> [h.shape for h in MLP([3, 4, 2], activation="tanh").activations(np.zeros((5, 3)))]
        [(5, 4), (5, 2)]
        """
        rows = self.rows(x)
        h = self.be.asarray(rows, self.dtype)
        contexts = self.contexts(rows.shape[0], Workspace(self.be, self.dtype).array, train=False)
        result: list[Any] = []
        for layer, c in zip(self.layers, contexts, strict=True):
            with self.be.lock:
                h = layer.forward(h, c)
            # a layer of `sizes` begins with a product; slopes (PReLU) and dropout behind it belong to it
            if any(s.name == "weight" for s in layer.specs()):
                result.append(None)
            if result:
                there = is_foreign(rows)
                result[-1] = namespace(h).asarray(h, copy=True) if there else np.array(self.be.to_numpy(h))
        return [follow(x, layer) for layer in result]

    def predict_proba(self, x: Any) -> Any:
        """Return class probabilities (B, C), or (M, B, C) for a population.

        Softmax or sigmoid of the outputs, as the loss implies; a single sigmoid output gives two columns. After
        the squared error the outputs are limited to [0, 1] and divided by their sum.

        Raises
        ------
        ConfigError
            The model has not been trained, or its loss (hinge, a regression) knows no probabilities.
        """
        loss = self.loss_function()
        if self.task == "regression" or loss.link is None:
            raise ConfigError(
                f"the {loss.name} loss gives scores, not probabilities; use outputs() or predict()"
            )
        p = answers.probabilities(self._inference(self, self.rows(x)), loss, self.task, self.be)
        return follow(x, p if self.unsmoothing is None else answers.unsmoothed(p, self.unsmoothing))

    def predict(self, x: Any) -> Any:
        """Return class indices (B,) int64, labels (B, O) for multi-label, or predicted values (B, O).

        A population adds its axis M in front. Predicted values are in the model's dtype; in float64 where the targets
        were learnt in other units than their own (`target_units`).
        """
        loss, h = self.loss_function(), self._inference(self, self.rows(x))
        # outputs have come to the host unless the samples were on the device
        be = self.be if type(h) is type(self.weights) else get_backend("cpu")
        result = answers.predictions(h, loss, self.task, be)
        return follow(x, result if self.target_units is None else self.target_units.own(result))

    def learns(self, task: str, loss: Loss) -> None:
        """Take note of the task and the loss that it is trained with: they say what its outputs mean."""
        super().learns(task, loss)
        self._known_loss = (loss.name, loss)

    def loss_function(self) -> Loss:
        """Return the loss that it was trained with.

        Raises
        ------
        ConfigError
            It has not been trained, or with a loss of somebody's own that `load` was not given.
        """
        self._need_task()
        if self._known_loss is None or self._known_loss[0] != self.loss:
            self._known_loss = (self.loss, _known(self.loss or ""))
        return self._known_loss[1]

    def _need_task(self) -> None:
        if self.task is None:
            raise not_trained()

    # --- copies and pickles ---------------------------------------------------------------------
    def __deepcopy__(self, memo: dict[int, Any]) -> MLP:
        # a back end of its own: one of the two may be trained while the other one answers in another thread
        return self.to(deepcopy(self.be, memo))

    def __getstate__(self) -> dict[str, Any]:
        """NumPy arrays and plain values, and how the back end was made: buffers and captured work are made anew."""
        own_loss = None if self._known_loss is None or _is_known(self.loss) else self._known_loss
        return {
            "settings": self._settings(), "n_models": self.n_models, "seeds": self.seeds, "dtype": self.dtype,
            "device": self.be.origin or self.be, "weights": self.get_weights(),
            "meaning": self.meaning() | {"_known_loss": own_loss},
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        def make(device: Any) -> None:
            seed = state["seeds"] if state["n_models"] else state["seeds"][0]
            self.__init__(  # type: ignore[misc]
                **state["settings"],
                n_models=state["n_models"],
                seed=seed,
                dtype=state["dtype"],
                device=device,
            )

        origin = state["device"]
        try:
            make(origin.again() if isinstance(origin, Origin) else origin)
        except DeviceError as error:
            warnings.warn(f"the model now computes on the CPU: {error}", stacklevel=2)
            make("cpu")
        self.put_weights(state["weights"])
        vars(self).update(state["meaning"])

    # --- how it shows itself ----------------------------------------------------------------------
    def __repr__(self) -> str:
        many = "" if self.n_models is None else f"{self.n_models} models of "
        return (
            f"<MLP {'-'.join(map(str, self.sizes))}: {many}{self.n_parameters:,} parameters, {self.dtype} on "
            f"{self.be.device}, {self.task or 'untrained'}>"
        )

    def _repr_html_(self) -> str:
        """The layers as a table, for notebooks."""
        from ..notebook import table

        rows = []
        for i, layer in enumerate(self.layers):
            specs = layer.specs()
            shapes = ", ".join(f"{s.name} {'×'.join(map(str, s.shape))}" for s in specs)
            rows.append([i, layer.label, shapes, sum(math.prod(s.shape) for s in specs)])
        return table(repr(self).strip("<>"), ["layer", "what", "tensors", "parameters"], rows)

    # --- files ----------------------------------------------------------------------------------
    def save(self, path: str | PathLike[str], extra: dict[str, Any] | None = None) -> None:
        """Write the model to one safetensors file: weights, architecture, preprocessing; no pickle, no data.

        Parameters
        ----------
        path : path
        extra : dict, optional
            JSON-serialisable entries to keep beside it, such as results.
        """
        metadata: dict[str, Any] = {
            "kind": "model", "architecture": self.architecture, "n_models": self.n_models,
            "seeds": list(self.seeds), "dtype": self.dtype, "extra": extra or {}, **self.meaning_to_metadata(),
        }  # fmt: skip
        if type(self).make_layers is not MLP.make_layers:  # which the architecture does not tell
            metadata["layers_of"] = type(self).__name__
        checkpoint.save_tensors(path, self.get_weights(), metadata)


def not_trained() -> ConfigError:
    """Build the error for a model that nothing was said about but its weights."""
    return ConfigError(
        "the model has not been trained: call xpnet.fit(model, (X, y)) or load a file; for weights from elsewhere say "
        "what they were trained for, as from_torch(net, task=..., loss=...)"
    )


def _known(name: str) -> Loss:
    try:
        return get_loss(name)
    except ConfigError as error:
        raise ConfigError(f"{error}. A loss of your own has to be given: load(path, own=[...])") from error


def _is_known(loss: str | None) -> bool:
    return str(loss).partition(":")[0] in NAMES


def _type_name(dtype: Any) -> Any:
    """The name of a type such as `numpy.float64`; anything else as it is, for the message."""
    try:
        return np.dtype(dtype).name
    except TypeError:
        return dtype


def _drawn_dtype(dtype: str) -> str:
    return dtype if dtype in DTYPES else "float64"
