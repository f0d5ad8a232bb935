from .loading import LoadedModel, load_model
from .points import read_point

__all__ = ["LoadedModel", "load_model", "read_point"]
