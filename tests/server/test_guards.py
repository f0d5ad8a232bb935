"""Keys, limits, overload, stops: the service goes on, and tells no more than it must."""

import asyncio
import json
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disintegrate.errors import DamagedFile, DisintegrateError, InvalidValue, UnknownName
from disintegrate.server import Key, Keys, Limits, Service, new_key, run
from disintegrate.server.keys import read_keys
from disintegrate.server.run import JsonLines, bound, is_loopback
from disintegrate.server.settings import read_settings
from tests.server.running import Running, inputs, serving, settings, small_model

EXPLAIN = "/v1/models/net:explain"
BODY = {"instances": inputs().tolist()}


def held(*limits: tuple[int | None, float | None]) -> tuple[list[dict[str, str]], Keys]:
    made = [new_key() for _ in limits]
    keys = tuple(
        Key(f"caller {i}", sha256, budget, rate)
        for i, ((_, sha256), (budget, rate)) in enumerate(zip(made, limits, strict=True))
    )
    return [{"Authorization": f"Bearer {key}"} for key, _ in made], Keys(keys)


def test_no_key_a_wrong_one_and_a_malformed_one_are_refused_alike() -> None:
    (first, _), keys = held((None, None), (None, None))
    right = first["Authorization"]
    with serving(Service(small_model(), settings()), keys) as running:
        assert running.post(EXPLAIN, BODY, headers=first).status_code == 200
        refused = [
            running.post(EXPLAIN, BODY, headers=headers)
            for headers in (
                {}, {"Authorization": "Bearer wrong"}, {"Authorization": right[:-1]}, {"Authorization": right[7:]},
                {"Authorization": "Basic " + right[7:]}, {"Authorization": "Bearer"},
                {"Authorization": right + " " + right[7:]}, {"Authorization": b"Bearer \xff\xfe"},
            )
        ]  # fmt: skip
        # Whether a model is there is not told to strangers either, nor whether a body would have been right.
        refused.append(running.post("/v1/models/other:explain", b"{", headers={}))
        refused += [running.get("/metrics"), running.get("/v2/models/net")]
        assert running.get("/metrics", headers=first).status_code == 200
    assert {answer.status_code for answer in refused} == {401}
    assert len({answer.content for answer in refused}) == 1
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in refused}) == 1


def test_a_budget_is_the_keys_own_and_what_it_refuses_tells_no_number() -> None:
    (first, second), keys = held((7, None), (100, None))
    with serving(Service(small_model(), settings()), keys) as running:
        for _ in range(2):
            assert running.post(EXPLAIN, BODY, headers=first).status_code == 200
        refused = [running.post(EXPLAIN, body, headers=first) for body in (BODY, {"instances": inputs(200).tolist()})]
        assert [answer.status_code for answer in refused] == [403, 403]
        assert refused[0].content == refused[1].content
        assert not any(character.isdigit() for character in refused[0].text)
        one = {"instances": inputs(1).tolist()}
        assert running.post(EXPLAIN, {**one, "parameters": {"n_steps": 3}}, headers=first).status_code == 400
        assert running.post(EXPLAIN, one, headers=first).status_code == 200
        assert running.post(EXPLAIN, one, headers=first).status_code == 403
        assert running.post(EXPLAIN, BODY, headers=second).status_code == 200
    assert [key.spent for key in keys.keys] == [7, 3]


def test_outputs_and_baselines_count_each() -> None:
    (header,), keys = held((100, None))
    with serving(Service(small_model(), settings(caller_baseline=True)), keys) as running:
        override = {
            "parameters": {"topK": -1},
            "metadata": {"inputs": {"x": {"inputBaselines": inputs(2).tolist()}}},
        }
        body = {"instances": [{"x": row} for row in inputs().tolist()], "explanationSpecOverride": override}
        path = "/v1/projects/p/locations/l/endpoints/net:explain"
        assert running.post(path, body, headers=header).status_code == 200
    assert keys.keys[0].spent == 3 * 4 * 2


def test_concurrent_requests_do_not_overrun_a_budget() -> None:
    (header,), keys = held((20, None))
    with serving(Service(small_model(), settings()), keys) as running, ThreadPoolExecutor(16) as pool:
        one = {"instances": inputs(1).tolist()}
        answers = list(pool.map(lambda _: running.post(EXPLAIN, one, headers=header).status_code, range(60)))
    assert (answers.count(200), answers.count(403)) == (20, 40)


def test_a_rate_is_kept_with_429_and_the_time_to_wait() -> None:
    (header,), keys = held((None, 2.0))
    with serving(Service(small_model(), settings()), keys) as running:
        answers = [running.post(EXPLAIN, BODY, headers=header) for _ in range(8)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 4 <= len(refused) <= 6
    assert all(answer.headers["retry-after"] == "1" for answer in refused)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("keys = 3", DamagedFile),
        ("[[keys]]\nname = 'a'\n", DamagedFile),
        ("[[keys]]\nname = 'a'\nsha256 = 'the key itself'\n", InvalidValue),
        (f"[[keys]]\nname = 'a'\nsha256 = '{'0' * 64}'\nbudget = -1\n", InvalidValue),
        (f"[[keys]]\nname = 'a'\nsha256 = '{'0' * 64}'\n" * 2, InvalidValue),
    ],
)
def test_files_of_keys_that_cannot_be_used_get_a_sentence(tmp_path: Path, text: str, kind: type) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(DisintegrateError) as caught:
        read_keys(tmp_path / "keys.toml")
    assert type(caught.value) is kind
    assert "the key itself" not in str(caught.value)
    with pytest.raises(UnknownName):
        read_keys(tmp_path / "none")


def test_it_binds_beyond_loopback_with_keys_only() -> None:
    service = Service(small_model(), settings())
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):  # noqa: S104  that is refused
        assert not is_loopback(host)
        with pytest.raises(InvalidValue, match="listens on loopback only"):
            run(service, host=host)
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    with bound("127.0.0.1", 0) as listener, pytest.raises(InvalidValue, match="cannot be listened on"):
        bound("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(InvalidValue, match="cannot be listened on"):
        bound("no-such-host.invalid", 0)


SMALL = Limits(body_bytes=2000, bodies_bytes=3000, send_seconds=0.3, requests=3, connections=6)


def raw(port: int, *parts: bytes, pause: float = 0.0, patience: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_bodies_too_large_are_refused_announced_or_not() -> None:
    with serving(Service(small_model(), settings(limits=SMALL))) as running:
        head = f"POST {EXPLAIN} HTTP/1.1\r\nhost: h\r\n".encode()
        announced = raw(running.port, head + b"content-length: 104857600\r\n\r\n")
        assert announced.startswith(b"HTTP/1.1 413")
        assert b'"error"' in announced
        chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        streamed = raw(running.port, head + b"transfer-encoding: chunked\r\n\r\n" + 5 * chunk)
        assert streamed.startswith(b"HTTP/1.1 413")
        assert running.post(EXPLAIN, BODY).status_code == 200
        assert running.service.settings.limits.body_bytes == 2000


def test_a_hundred_megabytes_and_ten_thousand_instances_are_refused() -> None:
    with serving(Service(small_model(), settings())) as running:
        try:
            status = running.post(EXPLAIN, b"[" * 100 * 2**20).status_code
        except httpx.WriteError:
            status = 413  # the service hung up before all of it was sent
        assert status == 413
        many = running.post(EXPLAIN, {"instances": inputs(10_000).tolist()})
        assert many.status_code == 413
        assert "may ask for 1024 explanations. Got 10000." in many.json()["error"]
        deep = running.post(EXPLAIN, b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
        assert deep.status_code == 400
        assert running.post(EXPLAIN, BODY).status_code == 200


def test_slow_senders_are_turned_away_and_hold_nobody_up() -> None:
    with serving(Service(small_model(), settings(limits=SMALL))) as running:
        head = f"POST {EXPLAIN} HTTP/1.1\r\nhost: h\r\n".encode()
        with ThreadPoolExecutor(4) as pool:
            slow = [
                pool.submit(raw, running.port, b""),
                pool.submit(raw, running.port, head[:20]),
                pool.submit(raw, running.port, head, b"content-length: 50\r\n\r\n", b"{"),
            ]
            assert running.post(EXPLAIN, BODY).status_code == 200
            for future in slow:
                assert future.result().startswith(b"HTTP/1.1 408")
        assert running.post(EXPLAIN, BODY).status_code == 200


class Slow(nn.Module):
    """Takes its time for each row, as a large model would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_model()
        self.gate = threading.Event()

    def __deepcopy__(self, memo: object) -> "Slow":
        return self

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 0 and bool(x.abs().sum() > 0):
            self.gate.wait(10)
        out: Tensor = self.inner(x)
        return out


def test_overload_is_answered_with_429_and_passes() -> None:
    model = Slow()
    limits = Limits(requests=12, waiting_rows=5)
    with serving(Service(model, settings(limits=limits))) as running, ThreadPoolExecutor(40) as pool:
        one = {"instances": inputs(1).tolist(), "parameters": {"targets": 0}}
        futures = [pool.submit(running.post, EXPLAIN, one, timeout=20) for _ in range(40)]
        done, waiting = wait(futures, timeout=2)
        early = [future.result() for future in done]
        assert len(early) >= 28
        assert {answer.status_code for answer in early} == {429}
        assert all(answer.headers["retry-after"] == "1" for answer in early)
        assert running.service.engine.load.waiting_rows <= 5
        model.gate.set()
        assert {future.result().status_code for future in waiting} == {200}
        assert running.post(EXPLAIN, one).status_code == 200


def test_what_waits_too_long_is_turned_away_and_not_computed() -> None:
    model = Slow()
    with serving(Service(model, settings(together=False, limits=Limits(answer_seconds=0.2)))) as running:
        one = {"instances": inputs(1).tolist(), "parameters": {"targets": 0}}
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: running.post(EXPLAIN, one).status_code, range(3)))
        assert answers == [429, 429, 429]
        model.gate.set()
        assert running.post(EXPLAIN, one).status_code == 200
        assert running.service.engine.load.rows <= 2


def test_a_stop_finishes_what_was_accepted() -> None:
    model = Slow()
    with ThreadPoolExecutor(2) as pool:
        with serving(Service(model, settings())) as running:
            one = {"instances": inputs(1).tolist(), "parameters": {"targets": 0}}
            futures = [pool.submit(running.post, EXPLAIN, one) for _ in range(2)]
            time.sleep(0.3)
            threading.Timer(0.3, model.gate.set).start()
        assert [future.result().status_code for future in futures] == [200, 200]


def test_a_service_that_was_stopped_serves_again() -> None:
    service = Service(small_model(), settings())
    for _ in range(2):
        with serving(service) as running:
            assert running.post(EXPLAIN, BODY).status_code == 200


def test_requests_that_arrive_together_are_computed_together() -> None:
    model = Slow()
    with serving(Service(model, settings())) as running, ThreadPoolExecutor(9) as pool:
        bodies = [{"instances": inputs(1, seed=i).tolist(), "parameters": {"targets": i % 4}} for i in range(9)]
        futures = [pool.submit(running.post, EXPLAIN, body) for body in bodies]
        # some are being computed, and wait at the gate; the others arrive meanwhile
        for _ in range(150):
            if running.service.engine.load.waiting_rows >= 6:
                break
            time.sleep(0.02)
        model.gate.set()
        together = [future.result().json()["explanations"][0] for future in futures]
        # a batch is counted just after its answers have gone out
        for _ in range(150):
            if running.service.engine.load.rows >= 9:
                break
            time.sleep(0.02)
        assert running.service.engine.load.largest_batch >= 6
        for body, answer in zip(bodies, together, strict=True):
            alone = running.post(EXPLAIN, body).json()["explanations"][0]
            np.testing.assert_allclose(alone["attributions"], answer["attributions"], rtol=1e-4, atol=1e-6)


def test_one_bad_request_spoils_no_other_of_its_batch() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if bool((x > 1000).any()):
                raise RuntimeError("no such values")
            return torch.stack([x.flatten(1).sum(1)] * 2, 1)

    service = Service(Picky(), settings())

    async def ask() -> list[object]:
        engine = service.engine
        work = engine.start()
        bad, good = inputs(1) + 5000, inputs(1)
        found = await asyncio.gather(*map(engine.predict, (good, bad, good)), return_exceptions=True)
        engine.close()
        await work
        return list(found)

    first, second, third = asyncio.run(ask())
    assert isinstance(second, DisintegrateError)
    np.testing.assert_array_equal(first, third)


def test_metrics_count_and_logs_hold_no_payload_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    (header,), keys = held((None, None))
    log = logging.getLogger("disintegrate.server")
    log.propagate = True
    with (
        caplog.at_level(logging.INFO, "disintegrate.server"),
        serving(Service(small_model(), settings()), keys) as running,
    ):
        running.post(EXPLAIN, {"instances": [[[0.123456, 1, 2], [3, 4, 5]]]}, headers=header)
        running.post(EXPLAIN, BODY, headers={"Authorization": "Bearer stolen"})
        text = running.get("/metrics", headers=header).text
    lines = [JsonLines().format(record) for record in caplog.records if record.name == log.name]
    found = [json.loads(line) for line in lines]
    assert [(line["status"], line["reason"], line["key"]) for line in found] == [
        (200, "", "caller 0"),
        (401, "key", None),
    ]
    for secret in (header["Authorization"][7:], "stolen", "0.123456"):
        assert not any(secret in line for line in lines)
    route = 'route="/v1/models/{model:name}:explain"'
    assert f'disintegrate_requests_total{{{route},status="200"}} 1.0' in text
    assert 'disintegrate_refused_total{reason="key"} 1.0' in text
    assert "disintegrate_batch_rows" in text


def test_the_openapi_description_tells_of_every_route(open_service: Running) -> None:
    found = open_service.get("/openapi.json").json()
    assert found["openapi"] == "3.1.0"
    for path in found["paths"]:
        filled = path.replace("{project}", "p").replace("{location}", "l")
        method = open_service.post(filled, b"{") if "post" in found["paths"][path] else open_service.get(filled)
        assert method.status_code in (200, 400), path


@pytest.mark.parametrize(
    ("text", "flags", "kind", "said"),
    [
        ("rule = ", {}, DamagedFile, "not TOML"),
        ("steps = 'many'", {}, InvalidValue, "The setting steps cannot be used"),
        ("colour = 3", {}, UnknownName, "no such setting"),
        ("[limits]\nbodies = 3", {}, UnknownName, "limits.bodies"),
        ("", {"rule": "simpson"}, UnknownName, "no such quadrature rule"),
        ("", {"steps_allowed": (100, 1)}, InvalidValue, "leave nothing to ask|outside what callers"),
        ("", {"steps": 5, "steps_allowed": (20, 100)}, InvalidValue, "outside what callers may ask for"),
        ("", {"name": "a/b"}, InvalidValue, "The setting name"),
        ("", {"overrides": "laugh"}, InvalidValue, "The setting overrides"),
    ],
)
def test_settings_that_cannot_be_used_get_a_sentence(
    tmp_path: Path, text: str, flags: dict[str, object], kind: type, said: str
) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(DisintegrateError, match=said) as caught:
        read_settings(tmp_path / "own.toml", flags)
    assert type(caught.value) is kind


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("rule = 'tensorflow_tutorial'\nsteps = 7\n[limits]\nrows = 9\n")
    found = read_settings(tmp_path / "own.toml", {"steps": 8})
    assert (found.own_steps, found.capabilities().rule, found.limits.rows) == (8, "tensorflow_tutorial", 9)
    with pytest.raises(UnknownName):
        read_settings(tmp_path / "none.toml", {})
