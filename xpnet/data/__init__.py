"""Data: named sets, the user's own files, splits, and the checks made when data enter.

Importing this loads NumPy and nothing heavier; downloads, pictures and the embedded digits import
what they need when they are used.
"""

from .checks import (
    check_features,
    check_labels,
    check_targets,
    check_trainable_labels,
    check_weights,
)
from .dataset import Dataset, Preprocessing
from .files import load_file
from .idx import read_idx, write_idx
from .images import load_image
from .inputs import load_inputs
from .labels import encode_labels
from .sources import NAMES, load
from .splits import stratified_split

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
