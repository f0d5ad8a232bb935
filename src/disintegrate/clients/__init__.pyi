from .connect import SCHEMES, connect
from .credentials import Credentials
from .link import Link
from .remote import RemoteExplainer

__all__ = ["SCHEMES", "Credentials", "Link", "RemoteExplainer", "connect"]
