"""Data: named sets, the user's own files, splits, and the checks made when data enter.

Importing this loads NumPy and nothing heavier; downloads, pictures and the embedded digits import
what they need when they are used.
"""

from xpnet.data.checks import (
    check_features,
    check_labels,
    check_targets,
    check_trainable_labels,
    check_weights,
)
from xpnet.data.dataset import Dataset, Preprocessing
from xpnet.data.files import load_file
from xpnet.data.idx import read_idx, write_idx
from xpnet.data.images import load_image
from xpnet.data.inputs import load_inputs
from xpnet.data.labels import encode_labels
from xpnet.data.sources import NAMES, load
from xpnet.data.splits import stratified_split

__all__ = [
    "NAMES",
    "Dataset",
    "Preprocessing",
    "check_features",
    "check_labels",
    "check_targets",
    "check_trainable_labels",
    "check_weights",
    "encode_labels",
    "load",
    "load_file",
    "load_image",
    "load_inputs",
    "read_idx",
    "stratified_split",
    "write_idx",
]
