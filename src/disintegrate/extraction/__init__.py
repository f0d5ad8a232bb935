"""What the leak costs: copies of a model from what its service answers, by methods that a harness counts and scores."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
