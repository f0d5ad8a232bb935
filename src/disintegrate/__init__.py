"""Does an explanation endpoint give away the model's gradient, and so the model?

The flow: capabilities -> plan -> queries -> explanations -> recovery -> score -> report.

The public names stand in `__init__.pyi`; each is imported when it is asked for, since plans and measures need
no torch, whose import takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
