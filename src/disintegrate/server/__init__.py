"""The reference explanation service: Integrated Gradients of one model over the protocols that people run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
