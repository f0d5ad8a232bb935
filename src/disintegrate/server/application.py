"""The service as an ASGI application: routes, admission, error bodies, logs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from disintegrate.server import kserve, oip, vertex
from disintegrate.server.admission import Admission
from disintegrate.server.exchange import JSON, Asked, Told
from disintegrate.server.keys import Key, Keys
from disintegrate.server.metrics import Metrics
from disintegrate.server.openapi import description
from disintegrate.server.refusals import Refusal
from disintegrate.server.service import Service

LOG = logging.getLogger("disintegrate.server")


class Name(Convertor[str]):
    """A part of a path up to the colon that a verb stands behind."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """The name as it stands."""
        return value

    def to_string(self, value: str) -> str:
        """The name as it stands."""
        return value


register_url_convertor("name", Name())

Handler = Callable[[Service, Asked, Key | None], Awaitable[Told]]
ErrorBody = Callable[[int, str], bytes]


@dataclass
class Endpoint:
    """A route that computes: who answers it, and how its protocol words errors."""

    route: str
    handler: Handler
    error_body: ErrorBody


@dataclass
class Host:
    """All that the requests of one application share."""

    service: Service
    keys: Keys
    metrics: Metrics
    admission: Admission
    open: bool = field(default=True)


def application(service: Service, keys: Keys | None = None) -> Starlette:
    """The ASGI application of a service.

    Args:
        service: the model behind its settings.
        keys: the API keys that are accepted; None for a service that asks for none.
    """
    keys = keys or Keys()
    host = Host(service, keys, Metrics(service.engine.load), Admission(service.settings.limits))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        work = service.engine.start()
        try:
            yield
        finally:
            service.engine.close()
            await work

    v1, v2 = "/v1/models/{model:name}", "/v2/models/{model:name}"
    endpoint = "/v1/projects/{project:name}/locations/{location:name}/endpoints/{model:name}"
    computing = [
        Endpoint(f"{v1}:explain", kserve.explain, kserve.error_body),
        Endpoint(f"{v1}:predict", kserve.predict, kserve.error_body),
        Endpoint(f"{v2}/infer", oip.infer, kserve.error_body),
        Endpoint(f"{v2}/versions/1/infer", oip.infer, kserve.error_body),
        Endpoint(f"{endpoint}:explain", vertex.explain, vertex.error_body),
        Endpoint(f"{endpoint}:predict", vertex.predict, vertex.error_body),
    ]
    routes = [Route(each.route, _computed(host, each), methods=["POST"]) for each in computing]
    routes += [
        Route("/", _told(host, _alive, guarded=False)),
        Route(v1, _told(host, _ready, guarded=False)),
        Route("/v2", _told(host, lambda host, request: _json(oip.SERVER_METADATA), guarded=False)),
        Route("/v2/health/live", _told(host, lambda host, request: _json(b'{"live":true}'), guarded=False)),
        Route("/v2/health/ready", _told(host, lambda host, request: _json(b'{"ready":true}'), guarded=False)),
        Route(f"{v2}/ready", _told(host, _ready, guarded=False)),
        Route(v2, _told(host, _metadata, guarded=True)),
        Route(endpoint, _told(host, _endpoint, guarded=True)),
        Route("/openapi.json", _told(host, _openapi, guarded=False)),
        Route("/metrics", _told(host, _metrics, guarded=True)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _unrouted, 500: _unexpected})
    app.router.redirect_slashes = False
    return app


def _computed(host: Host, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        started, key, status, reason = time.perf_counter(), None, 200, ""
        host.metrics.under_way.inc()
        try:
            with host.admission.request():
                key = host.keys.find(request.headers.get("authorization"))
                if key is not None:
                    key.admit()
                _check_model(host, request)
                async with host.admission.body(request) as body:
                    told = await endpoint.handler(host.service, Asked(body, request.headers), key)
            return Response(told.content, headers=dict(told.headers), media_type=told.media_type)
        except Refusal as refusal:
            status, reason = refusal.status, refusal.reason
            host.metrics.refused.labels(reason).inc()
            return _refused(refusal, endpoint.error_body)
        except ClientDisconnect:
            status, reason = 499, "gone"
            return Response(status_code=400)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            host.metrics.under_way.dec()
            host.metrics.requests.labels(endpoint.route, status).inc()
            host.metrics.seconds.labels(endpoint.route).observe(seconds)
            LOG.info(
                "request",
                extra={
                    "route": endpoint.route,
                    "status": status,
                    "reason": reason,
                    "key": key.name if key else None,
                    "milliseconds": round(1000 * seconds, 3),
                },
            )

    return answer


def _told(host: Host, content: Callable[[Host, Request], Response], *, guarded: bool) -> Callable[[Request], Response]:
    """A route that computes nothing."""

    def answer(request: Request) -> Response:
        try:
            if guarded:
                host.keys.find(request.headers.get("authorization"))
            return content(host, request)
        except Refusal as refusal:
            words = vertex.error_body if request.url.path.startswith("/v1/projects/") else kserve.error_body
            return _refused(refusal, words)

    return answer


def _alive(host: Host, request: Request) -> Response:
    return _json(b'{"status":"alive"}')


def _ready(host: Host, request: Request) -> Response:
    _check_model(host, request)
    return _json(f'{{"name":"{host.service.settings.name}","ready":true}}'.encode())


def _metadata(host: Host, request: Request) -> Response:
    _check_model(host, request)
    return _json(oip.model_metadata(host.service))


def _endpoint(host: Host, request: Request) -> Response:
    _check_model(host, request)
    return _json(vertex.endpoint_resource(host.service, request.url.path.removeprefix("/v1/")))


def _openapi(host: Host, request: Request) -> Response:
    return _json(orjson.dumps(description(host.service)))


def _metrics(host: Host, request: Request) -> Response:
    return Response(host.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _json(content: bytes) -> Response:
    return Response(content, media_type=JSON)


def _check_model(host: Host, request: Request) -> None:
    if request.path_params["model"] != host.service.settings.name:
        raise Refusal(404, "model", "There is no model of this name.")


def _refused(refusal: Refusal, error_body: ErrorBody) -> Response:
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(math.ceil(refusal.retry_after))
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refusal.status in (408, 413):
        # What is left of the body is not read.
        headers["connection"] = "close"
    return Response(
        error_body(refusal.status, refusal.problem), status_code=refusal.status, headers=headers, media_type=JSON
    )


def _unrouted(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {404: "There is no such path.", 405: "This path does not take this method."}.get(status, "Refused.")
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    error_body = vertex.error_body if request.url.path.startswith("/v1/projects/") else kserve.error_body
    return Response(error_body(status, sentence), status_code=status, headers=headers, media_type=JSON)


def _unexpected(request: Request, error: Exception) -> Response:
    return Response(kserve.error_body(500, "The service failed."), status_code=500, media_type=JSON)
