import pytest


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file, and return its path."""

    def writer(content, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return writer
