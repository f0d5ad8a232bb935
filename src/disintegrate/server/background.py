"""A service in a thread of this process, for notebooks, practice and tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from disintegrate.errors import DisintegrateError
from disintegrate.server.keys import Keys
from disintegrate.server.run import bound, prepared
from disintegrate.server.service import Service

PATIENCE = 60


@contextmanager
def in_background(service: Service, keys: Keys | None = None) -> Iterator[str]:
    """Serve on a free port of loopback until the block ends, and finish what was accepted; yields the URL.

    Raises:
        DisintegrateError: the service did not start.

    Example:
        >>> import httpx
        >>> from disintegrate.models import load_model
        >>> from disintegrate.server import Settings
        >>> settings = Settings(name="digits", input_shape=(1, 28, 28))
        >>> with in_background(Service(load_model("TwoLayerNet").module, settings)) as url:
        ...     httpx.get(f"{url}/v1/models/digits").json()["ready"]
        True
    """
    server = prepared(service, keys or Keys())
    with bound("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="service")
        thread.start()
        while not server.started:
            thread.join(0.005)
            if not thread.is_alive():
                raise DisintegrateError("The service did not start.")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(service.settings.limits.stop_seconds + PATIENCE)
