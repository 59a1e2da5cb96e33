"""Files and other libraries' objects, in and out."""

from graphunlearn.data.io.files import read_clicks, read_frame, read_ids, write_atomic

__all__ = ["read_clicks", "read_frame", "read_ids", "write_atomic"]
