"""Archives of NumPy that lie about their sizes."""

import io
import zipfile

import numpy as np
import pytest

from gated_bert.support.arrays import DAMAGED, read_npz


def header(shape, dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


def test_what_numpy_writes_is_read(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b/c": np.array("text"), "empty": np.zeros((0, 4), np.float32)}
    for name, save in (("stored", np.savez), ("packed", np.savez_compressed)):
        save(tmp_path / name, **arrays)
        found = read_npz(tmp_path / f"{name}.npz")
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[each], arrays[each]) for each in arrays)


@pytest.mark.parametrize(
    "content",
    [
        header((10**12,)) + bytes(8),
        header((10**6, 10**6)),
        header((1,)) + bytes(8),
        header((2,), "|O") + bytes(16),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_headers_that_contradict_what_is_stored_are_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(DAMAGED):
        read_npz(tmp_path / "a.npz")


def test_pickles_and_bombs_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="holds objects"):
        read_npz(tmp_path / "objects.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((25_000_000,)) + bytes(10**8))
    whole = (tmp_path / "bomb.npz").read_bytes()
    # The directory's size of the member, which no file so small can unpack to.
    size = (10**8 + len(header((25_000_000,)))).to_bytes(4, "little")
    (tmp_path / "bomb.npz").write_bytes(whole.replace(size, (2**32 - 2).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="declares 4,294,967,294 bytes"):
        read_npz(tmp_path / "bomb.npz")
