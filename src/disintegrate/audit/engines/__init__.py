"""Who does the blocks of an audit: this process, other processes, or actors of Ray; the record is the same."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
