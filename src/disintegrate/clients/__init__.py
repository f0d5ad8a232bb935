"""Clients: explanation services behind a network, each an `Explainer`, and what keeps paid answers safe."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
