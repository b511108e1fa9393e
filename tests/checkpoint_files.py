"""Checkpoint files as bytes, right ones and forged ones."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np

from xpnet import checkpoint


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()  # bits, so NaN and -0.0 count


def parse(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    return checkpoint._deserialise(io.BytesIO(data), len(data), "file")


def file_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, object]) -> bytes:
    return b"".join(bytes(part) for part in checkpoint._serialise(tensors, metadata))


def forge(header: dict[str, object] | bytes, body: bytes = b"") -> bytes:
    """Build a file with a right checksum around any header, as an attacker could."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(text + body).hexdigest().encode()
    return text.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest) + body


OWN = {"format": "xpnet", "format_version": "1", "sha256": "0" * 64}


def entry(dtype: object, shape: object, begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
