"""UnlearnRec: an influence encoder, pre-trained once for many requests."""

from graphunlearn.operators.unlearnrec.encoder import EncoderSettings
from graphunlearn.operators.unlearnrec.method import UnlearnRec
from graphunlearn.operators.unlearnrec.published import PublishedUnlearnRec
from graphunlearn.operators.unlearnrec.published_encoder import PublishedSettings

__all__ = ["EncoderSettings", "PublishedSettings", "PublishedUnlearnRec", "UnlearnRec"]
