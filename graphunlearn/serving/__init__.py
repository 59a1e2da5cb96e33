"""Hand-over of a corrected model to what serves: embeddings by raw id, changed lists, indices, experiment tracking."""

from graphunlearn.serving.changed import ChangedLists, changed_lists
from graphunlearn.serving.embeddings import EmbeddingTable, embedding_table, export_embeddings
from graphunlearn.serving.index import ServingIndex, replace_index
from graphunlearn.serving.tracking import in_production, log_to_mlflow

__all__ = [
    "ChangedLists",
    "EmbeddingTable",
    "ServingIndex",
    "changed_lists",
    "embedding_table",
    "export_embeddings",
    "in_production",
    "log_to_mlflow",
    "replace_index",
]
