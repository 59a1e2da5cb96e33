"""Files that are broken in any way: nothing is raised, and what is still there is found or the file is named."""

import numpy as np
import pytest
import trace_formats as formats

from graphunlearn.runs.traces import search_traces


@pytest.mark.parametrize("write", formats.FORMATS, ids=lambda write: write.__name__)
def test_no_mutation_of_a_file_stops_the_search(write, tmp_path):
    path = tmp_path / f"x.{formats.SUFFIX.get(write.__name__, 'dat')}"
    write(path, formats.TEXTS)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for number in range(30):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: rng.integers(len(data))]
        elif number % 3 == 1:
            for at in rng.integers(len(data), size=8):
                data[at] = rng.integers(256)
        else:
            at = int(rng.integers(len(data)))
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        path.unlink()
        path.write_bytes(data)
        found = search_traces(tmp_path, formats.TEXTS)
        assert found.files == 1


@pytest.mark.parametrize("write", [formats.npy, formats.safetensors, formats.parquet, formats.pickled, formats.npz])
def test_a_file_that_is_cut_off_is_named(write, tmp_path):
    path = tmp_path / "x"
    write(path, formats.TEXTS)
    path.write_bytes(path.read_bytes()[:-3])
    assert search_traces(path, ["nobody"]).unread


@pytest.mark.parametrize("write", [formats.npy, formats.safetensors])
def test_what_comes_after_the_content_is_searched(write, tmp_path):
    path = tmp_path / "x"
    write(path, ["another", "others"])
    path.write_bytes(path.read_bytes() + b" of the user anna-7 and so on")
    assert formats.count(search_traces(path, formats.TEXTS)) == 1
