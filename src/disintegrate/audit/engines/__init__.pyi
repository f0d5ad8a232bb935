from .local import LocalEngine
from .over_ray import RayEngine
from .processes import ProcessEngine
from .protocol import Block, Engine, Found, Seat, Source, Work, blocks_of
from .sources import Carried, Endpoint, by_request

__all__ = [
    "Block",
    "Carried",
    "Endpoint",
    "Engine",
    "Found",
    "LocalEngine",
    "ProcessEngine",
    "RayEngine",
    "Seat",
    "Source",
    "Work",
    "blocks_of",
    "by_request",
]
