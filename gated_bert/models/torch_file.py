"""PyTorch's own format of weights, read by PyTorch in a process of its own, and never by running what it holds.

TensorFlow and PyTorch in one process may bring each other down.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from gated_bert.start import python_command
from gated_bert.support.errors import UserError

_NO_TENSORS, _NO_DICTIONARY = 3, 4
_SAFE = (2, 6)
"""The first PyTorch that reads a file of strangers safely."""
_kept: list[tempfile.TemporaryDirectory] = []
"""Folders that are removed when this process ends."""


def as_safetensors(path: Path) -> Path:
    """A safetensors file with the tensors of a `pytorch_model.bin`, kept as long as this process.

    Raises:
        UserError: PyTorch is missing, or the file is damaged, or holds more than tensors.
    """
    found = path.stat()
    return _converted(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=8)
def _converted(path: Path, changed: int, size: int) -> Path:
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{path}: reading it needs PyTorch (pip install torch); or give the same weights as "
                        "model.safetensors")  # fmt: skip
    folder = tempfile.TemporaryDirectory(prefix="gated_bert_torch_", ignore_cleanup_errors=True)
    out = Path(folder.name) / "model.safetensors"
    done = subprocess.run(
        python_command("gated_bert.models.torch_file", str(path), str(out)), capture_output=True, text=True
    )
    if done.returncode == 0:
        _kept.append(folder)
        return out
    folder.cleanup()
    said = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
    if done.returncode == _NO_TENSORS:
        raise UserError(f"{path}: not a whole file of PyTorch, or one with more than tensors, which is not run "
                        f"({said}); give the same weights as model.safetensors")  # fmt: skip
    if done.returncode == _NO_DICTIONARY:
        raise UserError(f"{path}: holds {said}, not tensors by name; give the same weights as model.safetensors")
    raise UserError(f"{path}: PyTorch cannot read it ({said}); give the same weights as model.safetensors")


def convert(source: str, out: str) -> int:
    """Writes the tensors of a file of PyTorch as safetensors; returns the exit status."""
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE:
        # Before, `weights_only` could be got round (CVE-2025-32434).
        print(f"PyTorch {torch.__version__}; allowed: from {'.'.join(map(str, _SAFE))} on", file=sys.stderr)
        return 1
    from safetensors.torch import save_file

    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    # Whatever a damaged file makes of it; what it would run is refused by an UnpicklingError.
    except Exception as error:
        print(" ".join(str(error).split())[:150] or type(error).__name__, file=sys.stderr)
        return _NO_TENSORS
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        print(type(found).__name__, file=sys.stderr)
        return _NO_DICTIONARY
    tensors = {name: each.detach() for name, each in found.items() if isinstance(each, torch.Tensor)}
    # Copies: tensors that share memory, as tied embeddings do, are refused by the format.
    save_file({name: each.to_dense().clone().contiguous() for name, each in tensors.items()}, out)
    return 0


if __name__ == "__main__":
    sys.exit(convert(*sys.argv[1:]))
