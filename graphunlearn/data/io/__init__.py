"""Reading and writing of files, and conversion to and from objects of other libraries."""

from graphunlearn.data.io.files import read_clicks, read_frame, read_ids, write_atomic

__all__ = ["read_clicks", "read_frame", "read_ids", "write_atomic"]
