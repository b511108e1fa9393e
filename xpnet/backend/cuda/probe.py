"""Whether CUDA can be used here, and what to do where it cannot. Importing this module imports no CuPy.

The questions are asked from the cheap to the dear: which CuPy wheels are installed, which driver answers, which
devices it has, which libraries CuPy would load, and only then whether CuPy itself imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: What a finding can be about.
CAUSES = ("ok", "cupy-missing", "cupy-broken", "driver", "libraries", "no-device")

#: The oldest CuPy that the back end was written for, and the oldest drivers of the two families of wheels.
OLDEST_CUPY = (14, 0)
_DRIVER_OF = {"13": "580", "12": "525.60"}

#: Libraries that training loads, by the names the finder knows, and what they are for.
LIBRARIES = {"nvrtc": "the run-time compiler", "cublasLt": "matrix products"}


@dataclass(frozen=True)
class Finding:
    """What `probe` found.

    Attributes
    ----------
    available : bool
        Whether the CUDA back end can run.
    cause : str
        ``"ok"``, or what is in the way: ``"cupy-missing"``, ``"cupy-broken"``, ``"driver"`` (missing or too old),
        ``"libraries"`` (run-time compiler, matrix library or headers), ``"no-device"``.
    message : str
        What was found, in one sentence.
    advice : str
        The one command or step that mends it; empty where nothing is wrong.
    versions : dict of str
        Versions that could be read: ``cupy``, ``driver`` (the CUDA version it supports), ``nvrtc``, ``cublasLt``.
    wheels : list of str
        Installed CuPy packages, such as ``["cupy-cuda13x 14.2.0"]``; more than one disturb each other.
    """

    available: bool
    cause: str
    message: str
    advice: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    wheels: list[str] = field(default_factory=list)


def probe(device: int | None = None) -> Finding:
    """Say whether CUDA can be used, and on which of three counts it cannot: CuPy, the driver, or the libraries.

    Parameters
    ----------
    device : int, optional
        A device number that is wanted; None for any.

    Examples
    --------
    >>> finding = probe()
    >>> finding.available == (finding.cause == "ok") and finding.cause in CAUSES
    True
    """
    found = _Probe(device)
    for check in (found.wheels, found.driver, found.devices, found.libraries, found.cupy):
        finding = check()
        if finding is not None:
            return finding
    return found.finding("ok", f"CUDA {found.versions['driver']}, CuPy {found.versions['cupy']}")


class _Probe:
    """The checks in order; each returns a finding where it fails, else None."""

    def __init__(self, device: int | None):
        self.device = device
        self.versions: dict[str, str] = {}
        self.installed: dict[str, str] = installed_wheels()
        self.family = "13"  # of CUDA, that the installed wheel is made for
        self._driver: Any = None

    def finding(self, cause: str, message: str, advice: str = "") -> Finding:
        names = [f"{name} {version}" for name, version in self.installed.items()]
        return Finding(cause == "ok", cause, message, advice, dict(self.versions), names)

    def wheels(self) -> Finding | None:
        names = list(self.installed)
        if len(names) > 1:
            return self.finding(
                "cupy-broken",
                f"{len(names)} CuPy packages are installed ({', '.join(names)}); they overwrite each other's files",
                f'pip uninstall -y {" ".join(names)} && pip install "cupy-cuda13x[ctk]"',
            )
        if not names and importlib.util.find_spec("cupy") is None:
            return self.finding(
                "cupy-missing", "CuPy is not installed", f'pip install "cupy-cuda{self._suitable()}x[ctk]"'
            )
        if names:
            self.versions["cupy"] = self.installed[names[0]]
            family = re.fullmatch(r"cupy-cuda(\d+)x", names[0])
            self.family = family.group(1) if family else self.family
            if _numbers(self.versions["cupy"]) < OLDEST_CUPY:
                oldest = ".".join(map(str, OLDEST_CUPY))
                return self.finding(
                    "cupy-broken",
                    f"CuPy {self.versions['cupy']} is older than {oldest}",
                    f'pip install --upgrade "{names[0]}>={oldest}"',
                )
        return None

    def _suitable(self) -> str:
        """The family of wheels that the installed driver can run; the newest where there is no driver."""
        version = _driver_version(_load_driver())
        return "12" if version is not None and version < 13000 else "13"

    def driver(self) -> Finding | None:
        self._driver = _load_driver()
        version = _driver_version(self._driver)
        oldest = _DRIVER_OF.get(self.family, _DRIVER_OF["13"])
        if version is None:
            return self.finding(
                "driver",
                "no NVIDIA driver answers (libcuda could not be loaded)",
                f"install the NVIDIA driver, version {oldest} or later, then check it with: nvidia-smi",
            )
        self.versions["driver"] = f"{version // 1000}.{version % 1000 // 10}"
        if version < int(self.family) * 1000:
            return self.finding(
                "driver",
                f"the NVIDIA driver supports CUDA {self.versions['driver']}, and the installed CuPy needs "
                f"CUDA {self.family}",
                _older_wheel(self.installed, version)
                or f"install an NVIDIA driver of version {oldest} or later, then check it with: nvidia-smi",
            )
        return None

    def devices(self) -> Finding | None:
        count = ctypes.c_int(0)
        status = self._driver.cuInit(0)
        if status == 0:
            status = self._driver.cuDeviceGetCount(ctypes.byref(count))
        if status not in (0, 100):  # 100: there is none
            return self.finding(
                "driver",
                f"the NVIDIA driver cannot start (error {status}: {_error_text(self._driver, status)})",
                "check it with: nvidia-smi",
            )
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if count.value == 0:
            if visible is None:
                return self.finding(
                    "no-device", "the driver finds no CUDA device", "check it with: nvidia-smi"
                )
            return self.finding(
                "no-device",
                f"the driver shows no CUDA device, because CUDA_VISIBLE_DEVICES is {visible!r}",
                "unset CUDA_VISIBLE_DEVICES",
            )
        if self.device is not None and self.device >= count.value:
            shown = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
            devices = "cuda:0" if count.value == 1 else f"cuda:0 to cuda:{count.value - 1}"
            return self.finding(
                "no-device",
                f"there is no cuda:{self.device}; the driver shows {devices}{shown}",
                "use --device cuda:0",
            )
        return None

    def libraries(self) -> Finding | None:
        missing = []
        for name, purpose in LIBRARIES.items():
            try:
                self.versions[name] = _library_version(name)
            except Exception:  # the finder has an error class of its own for each platform
                missing.append(f"{name} ({purpose})")
        if not _headers_found():
            missing.append("headers (for CuPy's own kernels)")
        if missing:
            return self.finding(
                "libraries",
                f"CUDA libraries are missing: {', '.join(missing)}",
                f'pip install "{self._wheel()}[ctk]", or set CUDA_PATH to an installed CUDA toolkit',
            )
        return None

    def _wheel(self) -> str:
        return next(iter(self.installed), f"cupy-cuda{self.family}x")

    def cupy(self) -> Finding | None:
        try:
            cupy = importlib.import_module("cupy")
            self.versions["cupy"] = cupy.__version__
            usable = cupy.cuda.is_available()
        except Exception as error:
            return self.finding(
                "cupy-broken",
                f"CuPy is installed but does not import: {type(error).__name__}: {_first_line(error)}",
                f'pip install --force-reinstall "{self._wheel()}[ctk]"',
            )
        if not usable:
            return self.finding(
                "driver",
                "the driver has a CUDA device, but CuPy cannot use it",
                'python -c "import cupy; cupy.zeros(1)"',
            )
        return None


def installed_wheels() -> dict[str, str]:
    """Installed packages that bring a module ``cupy``, with their versions."""
    names = {"cupy", *(f"cupy-cuda{n}" for n in ("11x", "12x", "13x", "14x")), "cupy-rocm-7-0"}
    found = {}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _older_wheel(installed: dict[str, str], version: int) -> str | None:
    """How to replace a wheel that is too new for the driver; None where no wheel is old enough."""
    if version < 12000 or not installed:
        return None
    return f'pip uninstall -y {" ".join(installed)} && pip install "cupy-cuda12x[ctk]"'


def _load_driver() -> Any:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _driver_version(driver: Any) -> int | None:
    """The CUDA version that the driver supports, as 13000 for 13.0; None where none answers."""
    number = ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value == 0:
        return None
    return number.value


def _error_text(driver: Any, status: int) -> str:
    text = ctypes.c_char_p()
    if driver.cuGetErrorString(status, ctypes.byref(text)) != 0 or text.value is None:
        return "unknown"
    return text.value.decode(errors="replace")


def _library_version(name: str) -> str:
    """The version of a CUDA library, found as CuPy finds it: in wheels, then in conda, then in the system."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib(name).abs_path)
    return _VERSION[name](library)


def _nvrtc_version(library: Any) -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def _cublaslt_version(library: Any) -> str:
    library.cublasLtGetVersion.restype = ctypes.c_size_t
    n = library.cublasLtGetVersion()
    return f"{n // 10000}.{n % 10000 // 100}.{n % 100}"


_VERSION: dict[str, Callable[[Any], str]] = {"nvrtc": _nvrtc_version, "cublasLt": _cublaslt_version}


def _headers_found() -> bool:
    try:
        from cuda.pathfinder import find_nvidia_header_directory
    except ImportError:  # a finder from before it knew headers: CuPy will say itself what it misses
        return True
    return find_nvidia_header_directory("cudart") is not None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
