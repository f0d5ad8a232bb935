"""What a service may answer instead of an explanation: an exception of ours that names target and cause."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from disintegrate.clients import Credentials, Link, RemoteExplainer, connect, read_credentials
from disintegrate.errors import (
    BadAnswer,
    DamagedFile,
    DisintegrateError,
    InDoubt,
    InvalidValue,
    KeyRefused,
    NotPermitted,
    UnknownName,
    Unreachable,
)
from disintegrate.explainers import Request

X = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
ASKED = Request(X, None, np.array([1, 1]), None)
TARGETS = {
    "kserve": "kserve+http://host:1/v1/models/net",
    "oip": "oip+http://host:1/v2/models/net",
    "vertex": "vertex+http://host:1/v1/projects/p/locations/l/endpoints/1",
    "torchserve": "torchserve+http://host:1/explanations/net",
}
Answer = Callable[[httpx.Request], httpx.Response]


def remote(scheme: str, answer: Answer, key: str | None = None) -> RemoteExplainer:
    link = Link(Credentials(key), transport=httpx.MockTransport(answer))
    return connect(TARGETS[scheme], link=link)


def ok(content: Any, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return lambda request: httpx.Response(200, content=body, headers=headers)


def vertex(attributions: Any, index: int = 1) -> dict[str, Any]:
    one = {"featureAttributions": {"x": attributions}, "instanceOutputValue": 1.0, "outputIndex": [index]}
    return {"explanations": [{"attributions": [one]}, {"attributions": [one]}]}


@pytest.mark.parametrize("scheme", TARGETS)
@pytest.mark.parametrize("content", [b"<html>sign in</html>", b"", b'{"explanations": [', b"\xff\xfe", b"[[[["])
def test_what_is_not_json_is_told_with_its_beginning(scheme: str, content: bytes) -> None:
    with remote(scheme, ok(content)) as explainer, pytest.raises(BadAnswer, match=r"http://host:1/.* answered"):
        explainer.explain(ASKED)


@pytest.mark.parametrize("scheme", TARGETS)
@pytest.mark.parametrize("content", [{}, [], None, 3, "text", {"explanations": None}, {"outputs": [3, {}]}])
def test_missing_fields_are_told(scheme: str, content: object) -> None:
    with remote(scheme, ok(content)) as explainer, pytest.raises(BadAnswer, match="http://host:1/"):
        explainer.explain(ASKED)


@pytest.mark.parametrize(
    ("scheme", "content"),
    [
        ("kserve", {"explanations": [{"attributions": [1, 2, 3], "output": 1.0}]}),
        ("kserve", {"explanations": [{"attributions": [1, 2], "output": 1.0}] * 2}),
        ("kserve", {"explanations": [{"attributions": [1, 2, 3]}] * 2}),
        ("kserve", {"explanations": [{"attributions": [1, 2, "3"], "output": 1.0}] * 2}),
        ("kserve", {"explanations": [{"attributions": [1, 2, None], "output": 1.0}] * 2}),
        ("kserve", b'{"explanations": [{"attributions": [1, 2, NaN], "output": 1.0}]}'),
        ("kserve", b'{"explanations": [{"attributions": [1, 2, 1e400], "output": 1.0}]}'),
        ("oip", {"outputs": [{"name": "attributions", "data": [1.0] * 5}, {"name": "output", "data": [1.0] * 2}]}),
        ("oip", {"outputs": [{"name": "attributions", "data": [1.0] * 6}]}),
        ("vertex", vertex([1, 2])),
        ("vertex", vertex([1, 2, 3], index=0)),
        ("vertex", {"explanations": [{"attributions": []}] * 2}),
        ("vertex", {"explanations": vertex([1, 2, 3])["explanations"][:1]}),
        ("torchserve", [[1, 2, 3]]),
        ("torchserve", {"explanations": [[1, 2, 3], [1, 2]]}),
    ],
)
def test_wrong_lengths_and_what_is_no_finite_number_are_told(scheme: str, content: object) -> None:
    with remote(scheme, ok(content)) as explainer, pytest.raises(BadAnswer, match="http://host:1/"):
        explainer.explain(ASKED)


def binary(size: int, length: object = None, datatype: str = "FP32", bad: float = 1.0) -> Answer:
    tensors = [
        {"name": "attributions", "datatype": datatype, "parameters": {"binary_data_size": size}},
        {"name": "output", "datatype": "FP32", "data": [1.0, 2.0]},
    ]
    header = orjson.dumps({"outputs": tensors})
    content = header + np.full(6, bad, np.float32).tobytes()
    told = str(len(header) if length is None else length)
    return ok(content, **{"Inference-Header-Content-Length": told})


def test_a_binary_answer_that_lies_about_lengths_is_told() -> None:
    with remote("oip", binary(24)) as explainer:
        assert (explainer.explain(ASKED).attribution == 1).all()
    for answer in (binary(25), binary(-1), binary(23), binary(20), binary(24, 10_000), binary(24, "x"),
                   binary(24, datatype="BYTES"), binary(24, bad=np.nan)):  # fmt: skip
        with remote("oip", answer) as explainer, pytest.raises(BadAnswer, match="http://host:1/"):
            explainer.explain(ASKED)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (400, {}, NotPermitted),
        (413, {}, NotPermitted),
        (422, {}, NotPermitted),
        (401, {}, KeyRefused),
        (403, {}, KeyRefused),
        (404, {}, UnknownName),
        (405, {}, UnknownName),
        (429, {}, Unreachable),
        (429, {"retry-after": "7"}, Unreachable),
        (503, {"retry-after": "7"}, Unreachable),
        (503, {}, InDoubt),
        (500, {}, InDoubt),
        (502, {}, InDoubt),
        (504, {}, InDoubt),
        (302, {"location": "http://elsewhere/"}, Unreachable),
        (307, {"location": "/v1/other"}, Unreachable),
    ],
)
def test_each_status_says_whether_the_query_was_answered(status: int, headers: dict[str, str], kind: type) -> None:
    body = orjson.dumps({"error": "because of\n  this"})
    answer = httpx.Response(status, headers=headers, content=body)
    with remote("kserve", lambda _: answer) as explainer, pytest.raises(DisintegrateError) as caught:
        explainer.explain(ASKED)
    assert type(caught.value) is kind
    assert "http://host:1/v1/models/net:explain" in str(caught.value)
    if status >= 400:
        assert f"status {status}: because of this" in str(caught.value)
    else:
        assert ("http://elsewhere/" if status == 302 else "http://host:1/v1/other") in str(caught.value)
    if isinstance(caught.value, Unreachable) and status >= 400:
        assert caught.value.retry_after == (7 if headers else None)


def test_a_redirect_is_not_followed_and_takes_no_key_along() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"location": "http://thief/"})

    with remote("kserve", answer, key="secret") as explainer, pytest.raises(Unreachable, match="http://thief/"):
        explainer.explain(ASKED)
    assert asked == ["host"]


def test_the_key_is_sent_and_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("top-secret\nsecond line")
    monkeypatch.setenv("DISINTEGRATE_KEY", "from-environment")
    assert read_credentials(None).headers() == {"Authorization": "Bearer from-environment"}
    credentials = read_credentials(tmp_path / "key")
    assert credentials.headers() == {"Authorization": "Bearer top-secret"}

    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": f"got {request.headers['authorization']}"})

    with remote("kserve", echo, key="top-secret") as explainer, pytest.raises(NotPermitted) as caught:
        explainer.explain(ASKED)
    assert "Bearer ***" in str(caught.value)
    for shown in (str(caught.value), repr(credentials), str(credentials), repr(vars(explainer.link))):
        assert "top-secret" not in shown
    with pytest.raises(TypeError):
        credentials.__reduce__()
    with pytest.raises(UnknownName):
        read_credentials(tmp_path / "none")
    (tmp_path / "empty").write_text("")
    with pytest.raises(InvalidValue, match=r"\*\*\*"):
        read_credentials(tmp_path / "empty")


def failure(target: str, kind: type[DisintegrateError], said: str) -> DisintegrateError:
    with connect(target) as explainer, pytest.raises(kind, match=said) as caught:
        explainer.explain(ASKED)
    return caught.value


@contextmanager
def talking(said: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that says this to whoever comes, then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) if context else connection as stream:
                    stream.settimeout(5)
                    stream.recv(65536)
                    if said is not None:
                        stream.sendall(said)
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"explanations": [',
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_a_server_that_dies_in_mid_answer_leaves_the_query_in_doubt(said: bytes) -> None:
    with talking(said) as port:
        target = f"kserve+http://127.0.0.1:{port}/v1/models/net"
        told = failure(target, InDoubt, rf"127\.0\.0\.1:{port}.* gave no whole answer")
    assert isinstance(told, InDoubt)


def test_a_refused_connection_and_one_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        silent = connect(f"kserve+http://127.0.0.1:{port}/v1/models/net", link=Link(seconds=0.2))
        with silent as explainer, pytest.raises(InDoubt, match="ReadTimeout"):
            explainer.explain(ASKED)
    failure(f"kserve+http://127.0.0.1:{port}/v1/models/net", Unreachable, "cannot be reached.*Check the address")


def test_tls_that_cannot_be_trusted_is_told_and_not_tried_again(tmp_path: Path) -> None:
    command = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
        "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with talking(None, context) as port:
        target = f"kserve+https://localhost:{port}/v1/models/net"
        told = failure(target, Unreachable, "CERTIFICATE_VERIFY_FAILED.*Check its certificate")
    assert isinstance(told, Unreachable)
    assert told.lasting


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("http://host/v1/models/net", UnknownName, "PROTOCOL+URL"),
        ("soap+http://host/", UnknownName, "kserve, oip, vertex, torchserve"),
        ("kserve+ftp://host/", InvalidValue, "http:// or https://"),
        ("kserve+http://", InvalidValue, "http:// or https://"),
        ("kserve+http://host:port/", InvalidValue, "no URL"),
        ("kserve+http://user:secret@host/", InvalidValue, "must not hold a user or a password"),
        ("http-json:nowhere.toml", UnknownName, "no such file"),
    ],
)
def test_targets_that_cannot_be_asked_get_a_sentence(target: str, kind: type, said: str) -> None:
    with pytest.raises(DisintegrateError) as caught:
        connect(target)
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("url =", DamagedFile, "not TOML"),
        ("url = 'http://h/'\nbody = '{}'\n", DamagedFile, "attributions"),
        ("url = 3\nbody = '{}'\nattributions = 'a'\n", DamagedFile, "url"),
        ("url = 'http://h/'\nbody = '{'\nattributions = 'a'\n", DamagedFile, "not JSON"),
        ("url = 'http://h/'\nbody = '{}'\nattributions = 'a['\n", InvalidValue, "no JMESPath"),
        ("url = 'http://h/'\nbody = '[\"$input\", \"$image\"]'\nattributions = 'a'\n", InvalidValue, "$image"),
        ("url = 'http://h/'\nbody = '{}'\nattributions = 'a'\nmethod = 'GET'\n", UnknownName, "method"),
    ],
)
def test_templates_that_describe_nothing_get_a_sentence(tmp_path: Path, text: str, kind: type, said: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(DisintegrateError) as caught:
        connect(f"http-json:{tmp_path / 'own.toml'}")
    assert type(caught.value) is kind
    assert said in str(caught.value)


def test_torchserve_answers_in_any_of_its_three_forms_and_tells_outputs_elsewhere() -> None:
    attributions, outputs = (2 * X).tolist(), [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    for form in (attributions, {"explanations": attributions}, {"predictions": attributions}):

        def answer(request: httpx.Request, form: object = form) -> httpx.Response:
            sent = orjson.loads(request.content)["instances"]
            assert [each["data"] for each in sent] == X.tolist()
            assert [each["target"] for each in sent] == [1, 1]
            explains = request.url.path == "/explanations/net"
            return httpx.Response(200, json=form if explains else {"predictions": outputs})

        with remote("torchserve", answer) as explainer:
            found = explainer.explain(ASKED)
            assert (explainer.capabilities.rule, explainer.capabilities.own_steps) == ("captum_gausslegendre", 15)
        np.testing.assert_array_equal(found.attribution, 2 * X)
        np.testing.assert_array_equal(found.output, [0.2, 0.5])
