"""Whether a service leaks: `audit`, from probing to a verdict that can be checked."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
