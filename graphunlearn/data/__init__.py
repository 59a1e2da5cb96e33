from graphunlearn.data.interaction import InteractionGraph
__all__ = ["InteractionGraph"]
