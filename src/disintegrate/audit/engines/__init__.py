"""Who does the blocks of an audit: this process, other processes, or actors of Ray; the record is the same.

Two fields may differ: `run.command`, which names the engine, and `run.date`. A model's last digits hang on what is
computed together and on the number of threads, so blocks are the same in every engine and workers use as many threads
as their parent; on another processor `distance`, and what is computed from it, may differ in its last digits too.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
