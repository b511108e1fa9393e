"""Every operation in plain Array-API calls: the definition of truth.

Runs on any Array-API namespace (`array_api_strict` and its fake devices in the tests), allocates freely,
and is what the fast back ends are compared with. See `xpnet.backend` for the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import rng
from ..errors import ConfigError
from . import Array, Backend


class ElementwiseNamespace:
    """The namespace that functions given to `Backend.map` see: Array-API names plus `erf`.

    The Array-API standard has no error function, which exact GELU needs. Here it goes through SciPy on the
    host; a back end with a native one passes that.
    """

    def __init__(self, xp: Any, erf: Callable[[Array], Array]):
        self._xp = xp
        self.erf = erf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp, name)


class ReferenceBackend(Backend):
    """The contract on an Array-API namespace.

    Parameters
    ----------
    xp : module
        An Array-API namespace: `numpy`, `array_api_strict`, `torch` through array-api-compat, ...
    device : object, optional
        A device of that namespace; its default device where omitted.

    Raises
    ------
    ConfigError
        It is no such namespace, or its arrays cannot be written to, such as those of JAX.

    Examples
    --------
    >>> be = ReferenceBackend(np)
    >>> be.softmax(be.asarray([[1.0, 1.0]]), out=be.empty((1, 2), "float64"))
    array([[0.5, 0.5]])
    """

    def __init__(self, xp: Any = np, device: Any = None):
        name = getattr(xp, "__name__", repr(xp))
        if not hasattr(xp, "__array_api_version__"):
            import array_api_compat

            try:
                xp = array_api_compat.array_namespace(xp.empty(0))
            except (AttributeError, TypeError) as error:
                raise ConfigError(f"{name} is no namespace of the Array API ({error})") from error
        try:
            xp.empty(1)[0] = 0.0
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the arrays of {name} cannot be written to, which a back end needs: results go into buffers"
            ) from error
        self.xp = xp
        self._device = device
        self.name = xp.__name__.replace("array_api_compat.", "")
        self.device = "cpu" if device is None else str(device)
        self._ns = ElementwiseNamespace(xp, self._erf)

    def _erf(self, x: Array) -> Array:
        from scipy.special import erf

        return self.asarray(erf(self.to_numpy(x)))

    # --- memory ---------------------------------------------------------------------------------
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        return self.xp.asarray(values, dtype=dtype and getattr(self.xp, dtype), device=self._device)

    def to_numpy(self, x: Array) -> np.ndarray:
        try:
            return np.asarray(x)
        except (TypeError, RuntimeError, ValueError):
            # A namespace with devices of its own: move to its default device, then exchange memory.
            default = self.xp.__array_namespace_info__().default_device()
            return np.from_dlpack(x.to_device(default))

    def empty(self, shape: Sequence[int], dtype: str) -> Array:
        return self.xp.empty(tuple(shape), dtype=getattr(self.xp, dtype), device=self._device)

    def synchronize(self) -> None:
        pass

    # --- compute --------------------------------------------------------------------------------
    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        a = self.xp.matrix_transpose(a) if ta else a
        b = self.xp.matrix_transpose(b) if tb else b
        out[...] = self.xp.matmul(a, b)
        return out

    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        results = fn(self._ns, *args)
        if isinstance(out, tuple):
            # copied, because `fn` may hand an argument back that another output is about to overwrite
            copies = [self.xp.asarray(r, copy=True, device=self._device) for r in results]
            for o, r in zip(out, copies, strict=True):
                o[...] = self.xp.broadcast_to(r, o.shape)
        else:
            out[...] = results
        return out

    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        out[...] = self.xp.sum(x, axis=axis)
        return out

    def softmax(self, z: Array, *, out: Array) -> Array:
        e = self.xp.exp(z - self.xp.max(z, axis=-1, keepdims=True))
        out[...] = e / self.xp.sum(e, axis=-1, keepdims=True)
        return out

    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        xp = self.xp
        shifted = z - xp.max(z, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        total = xp.sum(e, axis=-1, keepdims=True)
        loss[...] = xp.sum(t * (xp.log(total) - shifted), axis=-1)
        gradient = xp.sum(t, axis=-1, keepdims=True) * (e / total) - t
        out[...] = gradient * xp.expand_dims(w, axis=-1)
        return out

    def softmax_head(
        self, z: Array, t: Array, w: Array, labels: Array, *,
        loss: Array, out: Array, batch_loss: Array, total: Array, hits: Array,
    ) -> Array:  # fmt: skip
        xp = self.xp
        right = xp.argmax(z, axis=-1) == labels  # before `out`, which may be z
        self.softmax_cross_entropy(z, t, w, loss=loss, out=out)
        batch_loss[...] = xp.sum(loss, axis=-1)
        total[...] = total + xp.astype(batch_loss, total.dtype)
        hits[...] = hits + xp.sum(xp.astype(right, hits.dtype), axis=-1)
        return out

    def argmax(self, x: Array, *, out: Array) -> Array:
        out[...] = self.xp.argmax(x, axis=-1)
        return out

    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        flat = self.xp.take(x, self.xp.reshape(index, (-1,)), axis=0)
        rows = self.xp.reshape(flat, (*index.shape, *x.shape[1:]))
        rows = self.xp.astype(rows, out.dtype)
        # labels are gathered too, and an integer times 1.0 is no longer an integer
        plain = isinstance(scale, float) and isinstance(shift, float) and scale == 1.0 and shift == 0.0
        out[...] = rows if plain else rows * scale + shift
        return out

    def uniform(self, out: Array, *, seeds: Sequence[int], stream: int, counter: Array) -> Array:
        step = int(counter[0])
        if len(seeds) == 1:
            drawn = rng.uniform(seeds[0], stream, step, tuple(out.shape))
        else:
            drawn = np.stack([rng.uniform(seed, stream, step, tuple(out.shape[1:])) for seed in seeds])
        out[...] = self.asarray(drawn)
        return out

    def permutation(self, *, seed: Any, epoch: Any, out: Array) -> Array:
        drawn = rng.permutations(out.shape[-1], np.ravel(seed).tolist(), np.ravel(epoch).tolist())
        out[...] = self.asarray(drawn.reshape(out.shape))
        return out
