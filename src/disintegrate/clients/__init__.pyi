from .budget import Budget
from .careful import careful
from .connect import SCHEMES, TEMPLATE, connect
from .credentials import Credentials, read_credentials
from .journal import Counts, Journal
from .journaled import Doubt, Journaled
from .link import Link
from .remote import RemoteExplainer
from .retrying import Retrying
from .under_way import Concurrent
from .watched import Watched

__all__ = [
    "SCHEMES",
    "TEMPLATE",
    "Budget",
    "Concurrent",
    "Counts",
    "Credentials",
    "Doubt",
    "Journal",
    "Journaled",
    "Link",
    "RemoteExplainer",
    "Retrying",
    "Watched",
    "careful",
    "connect",
    "read_credentials",
]
