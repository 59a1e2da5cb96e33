"""Files with their own hash: it is that of SHA-256 over the file with zeros in its place, and any change is seen."""

import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import load

from graphunlearn.data.io.sealed import LARGEST, check_seal, parse_json, read_json, sealed_json, sealed_tensors

CONTENT = {"name": "é", "inner": {"sha256": "1" * 64, "list": [1, 2.5, None, True]}, "text": '"sha256":"' + "2" * 64}
NUMBERS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([3])}


def json_file():
    return sealed_json(CONTENT)


def tensor_file():
    return sealed_tensors(dict(NUMBERS), {"facts": json.dumps(CONTENT), "format": "pt"})


@pytest.mark.parametrize("make", [json_file, tensor_file])
def test_the_hash_is_that_of_the_file_with_zeros_in_its_place(make):
    data = make()
    digests = re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", data)
    (found,) = [d for d in digests if d not in (b"1" * 64, b"2" * 64)]
    assert found.decode() == hashlib.sha256(data.replace(found, b"0" * 64)).hexdigest()
    assert check_seal(data)
    assert check_seal(data, required=True)


def test_the_content_stays():
    assert json.loads(json_file()).keys() == {*CONTENT, "sha256"}
    tensors = load(tensor_file())
    assert all(torch.equal(tensors[name], value) for name, value in NUMBERS.items())


def test_a_file_that_is_sealed_again_has_one_hash():
    assert sealed_json(json.loads(json_file())) == json_file()


@pytest.mark.parametrize("make", [json_file, tensor_file])
def test_every_changed_or_lost_byte_is_seen(make, tmp_path):
    data, path = make(), tmp_path / "file"
    for place in range(len(data)):
        for broken in (data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :], data[:place] + data[place + 1 :]):
            with pytest.raises(ValueError, match=r"has been changed|lacks the hash"):
                check_seal(broken, required=True)
    path.write_bytes(data)
    assert check_seal(path, required=True)
    path.write_bytes(data + b"\n" if make is json_file else data[:-1] + b"\1")
    with pytest.raises(ValueError, match="file has been changed"):
        check_seal(path)


def test_a_file_without_a_hash_is_one_of_an_earlier_version():
    assert not check_seal(b"{}")
    with pytest.raises(ValueError, match="it lacks the hash of its content"):
        check_seal(b"{}", required=True)


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="a is empty"):
        check_seal(tmp_path / "a")


def nested(levels, opening, closing):
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_nesting_is_bounded(opening, closing):
    assert parse_json(nested(64, opening, closing)) == json.loads(nested(64, opening, closing))
    for levels in (65, 10_000, 1_000_000):
        with pytest.raises(ValueError, match="nested more than 64 levels"):
            parse_json(nested(levels, opening, closing))


def test_brackets_in_texts_are_no_nesting():
    content = ["[" * 1000, '{"' * 500, "\\", '\\"[', "]"]
    assert parse_json(json.dumps(content)) == content


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", '{"a": -1e400}'])
def test_numbers_are_finite(text):
    with pytest.raises(ValueError, match="it holds a number that is not finite"):
        parse_json(text)


@pytest.mark.parametrize("text", ["", "[", '"', "{'a': 1}", "\udc80".encode("utf-8", "surrogatepass"), b"\xff"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ValueError, match=r"a\.json has 1,073,741,825 bytes, and at most 1,073,741,824 are read"):
        read_json(tmp_path / "a.json")


def test_reading_gives_the_content_without_the_hash(tmp_path):
    (tmp_path / "a.json").write_bytes(json_file())
    assert read_json(tmp_path / "a.json", required=True) == CONTENT
