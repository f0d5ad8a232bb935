from .application import application
from .background import in_background
from .keys import Key, Keys, new_key
from .run import run
from .service import Service
from .settings import Limits, Settings

__all__ = ["Key", "Keys", "Limits", "Service", "Settings", "application", "in_background", "new_key", "run"]
