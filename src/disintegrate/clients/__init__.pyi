from .budget import Allowance, Budget
from .careful import careful, kept
from .connect import SCHEMES, TEMPLATE, connect
from .credentials import Credentials, read_credentials
from .journal import Counts, Journal
from .journaled import Doubt, Journaled
from .link import Link
from .pace import Pace, Paced, Turns
from .remote import RemoteExplainer
from .repeating import Repeating
from .retrying import Retrying
from .shards import Shards, gather_shards
from .under_way import Concurrent
from .watched import Watched

__all__ = [
    "SCHEMES",
    "TEMPLATE",
    "Allowance",
    "Budget",
    "Concurrent",
    "Counts",
    "Credentials",
    "Doubt",
    "Journal",
    "Journaled",
    "Link",
    "Pace",
    "Paced",
    "RemoteExplainer",
    "Repeating",
    "Retrying",
    "Shards",
    "Turns",
    "Watched",
    "careful",
    "connect",
    "gather_shards",
    "kept",
    "read_credentials",
]
