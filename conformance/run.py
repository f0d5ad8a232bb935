"""Real clients against our service, our clients against real servers: writes results/conformance.json.

`make conformance` makes the environment and runs this. Every number is compared bit by bit with what the same float32
arithmetic gives in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from captum.attr import IntegratedGradients

from disintegrate import Capabilities, LocalExplainer, Request, distance, recover, single_step_beyond, vanilla_gradient
from disintegrate.clients import connect
from disintegrate.files import write_atomically
from disintegrate.paper.networks import build

HERE = Path(__file__).parent
OUT = HERE.parent / "results" / "conformance.json"
PACKAGES = ("disintegrate", "torch", "numpy", "captum", "kserve", "google-cloud-aiplatform", "torchserve", "protobuf")
ALLOWED = Capabilities("captum_gausslegendre", 1, 100, default_steps=50, dtype="float32")
X: np.ndarray = np.random.default_rng(0).normal(size=(6, 1, 28, 28)).astype(np.float32)
BASELINES: np.ndarray = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
TARGETS = np.array([3, 1, 4, 1, 5, 9])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def running(command: list[str], ready: str, **options: Any) -> Iterator[None]:
    """A server in a process group of its own, until it is ready and then until the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
        try:
            for _ in range(900):
                try:
                    if httpx.get(ready, trust_env=False).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.1)
                if process.poll() is not None:
                    break
            else:
                log.seek(0)
                raise TimeoutError(log.read()[-2000:].decode(errors="replace"))
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def local(request: Request) -> Any:
    """The same question in this process."""
    return LocalExplainer(build("LeNet"), ALLOWED).explain(request)


def same(found: Any, expected: Any) -> str:
    """Nothing, where two arrays are bit by bit the same float32; a sentence where they are not."""
    left, right = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if left.shape != right.shape or not np.array_equal(left, right):
        gap = float(np.abs(left - right).max()) if left.shape == right.shape else float("nan")
        raise AssertionError(f"not the same bits: shapes {left.shape}, {right.shape}, largest gap {gap:.3g}")
    return f"{left.size} numbers, all bits"


# Real clients, our service


def kserve_v1(port: int) -> str:
    """kserve.InferenceRESTClient, protocol v1: ready, predict, explain, and the sentence of a refusal."""
    from kserve import InferenceRESTClient, RESTConfig

    async def ask() -> str:
        async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
            base = f"http://127.0.0.1:{port}"
            assert await client.is_server_live(base)
            assert await client.is_model_ready(base, "7")
            body = {
                "instances": X.tolist(),
                "parameters": {"n_steps": 12, "baselines": BASELINES.tolist(), "targets": TARGETS.tolist()},
            }
            answer = await client.explain(base, "7", body)
            outputs = (await client.infer(base, {"instances": X.tolist()}, model_name="7"))["predictions"]
            try:
                await client.explain(base, "7", {"instances": X.tolist(), "parameters": {"n_steps": 101}})
            except httpx.HTTPStatusError as error:
                assert "steps in 1 to 100" in str(error)
            else:
                raise AssertionError("101 steps were not refused")
        expected = local(Request(X, BASELINES, TARGETS, 12))
        same([each["output"] for each in answer["explanations"]], expected.output)
        with torch.no_grad():
            same(outputs, build("LeNet").eval()(torch.from_numpy(X)))
        return same([each["attributions"] for each in answer["explanations"]], expected.attribution)

    return asyncio.run(ask())


def kserve_v2(port: int, *, binary: bool) -> str:
    """kserve.InferenceRESTClient, protocol v2, with InferRequest and InferInput."""
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
    from kserve.protocol.infer_type import RequestedOutput

    async def ask() -> str:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            base = f"http://127.0.0.1:{port}"
            assert await client.is_server_live(base)
            assert await client.is_server_ready(base)
            assert await client.is_model_ready(base, "7")
            tensors = []
            for name, array, datatype in (
                ("input", X, "FP32"), ("baselines", BASELINES, "FP32"), ("targets", TARGETS, "INT64"),
            ):  # fmt: skip
                tensor = InferInput(name, list(array.shape), datatype)
                tensor.set_data_from_numpy(array, binary_data=binary)
                tensors.append(tensor)
            wanted = [RequestedOutput(name, parameters={"binary_data": binary}) for name in ("attributions", "output")]
            request = InferRequest("7", tensors, request_outputs=wanted, parameters={"n_steps": 12})
            answer = await client.infer(base, request, model_name="7")
        expected = local(Request(X, BASELINES, TARGETS, 12))
        found = {output.name: output.as_numpy() for output in answer.outputs}
        assert found["attributions"].dtype == np.float32
        same(found["output"], expected.output)
        return same(found["attributions"], expected.attribution)

    return asyncio.run(ask())


def vertex_low_level(port: int) -> str:
    """aiplatform_v1.PredictionServiceClient over REST: explain with overrides, all outputs, predict, a refusal."""
    from google.api_core.exceptions import BadRequest
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform_v1
    from google.protobuf import json_format

    client = aiplatform_v1.PredictionServiceClient(
        credentials=AnonymousCredentials(),
        transport="rest",
        client_options={"api_endpoint": f"http://127.0.0.1:{port}"},
    )
    endpoint = "projects/p/locations/us-central1/endpoints/7"

    def request(**parameters: Any) -> Any:
        body = {
            "endpoint": endpoint,
            "instances": [{"x": row} for row in X.tolist()],
            "explanationSpecOverride": {
                "parameters": parameters,
                "metadata": {"inputs": {"x": {"inputBaselines": BASELINES[:1].tolist()}}},
            },
        }
        return aiplatform_v1.ExplainRequest(
            json_format.ParseDict(body, aiplatform_v1.ExplainRequest.pb(aiplatform_v1.ExplainRequest()))
        )

    def plain(message: Any) -> Any:
        return json_format.MessageToDict(type(message).pb(message))

    steps = {"stepCount": 12}
    answer = plain(client.explain(request(integratedGradientsAttribution=steps, outputIndices=[3])))
    begin = np.broadcast_to(BASELINES[0], X.shape).copy()
    expected = local(Request(X, begin, np.full(6, 3), 12))
    attributions = [each["attributions"][0] for each in answer["explanations"]]
    same([each["instanceOutputValue"] for each in attributions], expected.output)
    every = plain(client.explain(request(integratedGradientsAttribution=steps, topK=-1)))
    assert [len(each["attributions"]) for each in every["explanations"]] == [10] * 6
    predicted = plain(
        client.predict(endpoint=endpoint, instances=[json_format.ParseDict(row, _value()) for row in X.tolist()])
    )
    with torch.no_grad():
        same(predicted["predictions"], build("LeNet").eval()(torch.from_numpy(X)))
    try:
        client.explain(request(integratedGradientsAttribution={"stepCount": 101}))
    except BadRequest as error:
        assert "1 to 100" in str(error)
    else:
        raise AssertionError("101 steps were not refused")
    return same([each["featureAttributions"]["x"] for each in attributions], expected.attribution)


def _value() -> Any:
    from google.protobuf.struct_pb2 import Value

    return Value()


def vertex_high_level(port: int) -> str:
    """aiplatform.Endpoint(...).explain over REST; it reads the endpoint's resource and knows no overrides."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    aiplatform.init(
        project="p",
        location="us-central1",
        api_endpoint=f"http://127.0.0.1:{port}",
        api_transport="rest",
        credentials=AnonymousCredentials(),
    )
    endpoint = aiplatform.Endpoint("projects/p/locations/us-central1/endpoints/7")
    found = endpoint.explain(instances=[{"x": row} for row in X.tolist()])
    largest = np.array([int(each.attributions[0].output_index[0]) for each in found.explanations])
    attributions = [each.attributions[0].feature_attributions["x"] for each in found.explanations]
    with torch.no_grad():
        outputs = build("LeNet").eval()(torch.from_numpy(X)).numpy()
    assert (largest == outputs.argmax(1)).all()
    return same(_lists(attributions), local(Request(X, 0 * X, largest, 50)).attribution)


def _lists(found: Any) -> Any:
    """Google's repeated composites as lists."""
    return found if isinstance(found, float) else [_lists(each) for each in found]


# Our clients, real servers


def our_kserve_client(port: int) -> str:
    """Our client against kserve.ModelServer with Captum: the same bits, and a recovery through the network."""
    model = build("LeNet").eval()
    request = Request(X, BASELINES, TARGETS, 12)
    with connect(f"kserve+http://127.0.0.1:{port}/v1/models/lenet", capabilities=ALLOWED) as remote:
        answer = remote.explain(request)
        plan = single_step_beyond()
        gradient = recover(remote, X, TARGETS, plan).gradient
    arguments = (torch.from_numpy(X), torch.from_numpy(BASELINES))
    expected = IntegratedGradients(model).attribute(*arguments, target=torch.from_numpy(TARGETS), n_steps=12)
    truth = vanilla_gradient(model, torch.from_numpy(X), torch.from_numpy(TARGETS)).numpy()
    assert distance(truth, gradient).max() < 1e-5
    with torch.no_grad():
        same(answer.output, model(torch.from_numpy(X)).numpy()[np.arange(6), TARGETS])
    return same(answer.attribution, expected.detach())


def our_torchserve_client(port: int) -> str:
    """Our client against TorchServe: attributions of Captum's 15 steps, outputs from /predictions."""
    model = build("LeNet").eval()
    with connect(f"torchserve+http://127.0.0.1:{port}/explanations/lenet") as remote:
        answer = remote.explain(Request(X, None, TARGETS, None))
    expected = np.empty_like(X)
    outputs = np.empty(6, np.float32)
    for target in set(TARGETS.tolist()):
        rows = np.flatnonzero(target == TARGETS)
        batch = torch.from_numpy(X[rows])
        expected[rows] = IntegratedGradients(model).attribute(batch, target=target, n_steps=15).detach().numpy()
        with torch.no_grad():
            outputs[rows] = model(batch)[:, target].numpy()
    same(answer.output, outputs)
    return same(answer.attribution, expected)


# Running them


def main() -> None:
    """Run all and write the record."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    checks: list[dict[str, str]] = []

    def check(name: str, run: Callable[[], str]) -> None:
        started = time.perf_counter()
        try:
            outcome = {"outcome": "passed", "detail": run()}
        except Exception as error:
            traceback.print_exc()
            outcome = {"outcome": "failed", "detail": f"{type(error).__name__}: {str(error)[:300]}"}
        checks.append({"check": name, **outcome, "seconds": f"{time.perf_counter() - started:.1f}"})
        print(checks[-1])

    port = free_port()
    serve = [
        sys.executable, "-m", "disintegrate.cli", "serve", "LeNet", "--name", "7", "--port", str(port),
        "--steps-allowed", "1-100", "--caller-baseline", "--quiet",
    ]  # fmt: skip
    with running(serve, f"http://127.0.0.1:{port}/"):
        check("kserve.InferenceRESTClient v1, our service", lambda: kserve_v1(port))
        check("kserve.InferenceRESTClient v2 JSON, our service", lambda: kserve_v2(port, binary=False))
        check("kserve.InferenceRESTClient v2 binary, our service", lambda: kserve_v2(port, binary=True))
        check("aiplatform_v1.PredictionServiceClient REST, our service", lambda: vertex_low_level(port))
        check("aiplatform.Endpoint.explain REST, our service", lambda: vertex_high_level(port))
    real = free_port()
    with running([sys.executable, str(HERE / "kserve_server.py"), str(real)], f"http://127.0.0.1:{real}/"):
        check("our kserve client, kserve.ModelServer with Captum", lambda: our_kserve_client(real))
    with torchserve() as ports:
        check("our torchserve client, TorchServe with its handler", lambda: our_torchserve_client(ports))
    record = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "checks": checks,
    }
    write_atomically(OUT, (json.dumps(record, indent=1) + "\n").encode())
    sys.exit(any(each["outcome"] != "passed" for each in checks))


@contextmanager
def torchserve() -> Iterator[int]:
    """TorchServe with the JSON envelope, on loopback, without its tokens."""
    inference, management, metrics = free_port(), free_port(), free_port()
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store").mkdir()
        handler = str(HERE / "torchserve_handler.py")
        archive = [str(tools / "torch-model-archiver"), "--model-name", "lenet", "--version", "1", "--handler", handler]
        subprocess.run([*archive, "--export-path", str(folder / "store")], check=True)
        (folder / "config.properties").write_text(
            f"inference_address=http://127.0.0.1:{inference}\nmanagement_address=http://127.0.0.1:{management}\n"
            f"metrics_address=http://127.0.0.1:{metrics}\nservice_envelope=json\ndefault_workers_per_model=1\n"
            "disable_token_authorization=true\n"
        )
        command = [
            str(tools / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth",
            "--model-store", str(folder / "store"), "--models", "lenet=lenet.mar",
            "--ts-config", str(folder / "config.properties"),
        ]  # fmt: skip
        environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "LOG_LOCATION": str(folder)}
        described = f"http://127.0.0.1:{management}/models/lenet"
        with running(command, f"http://127.0.0.1:{inference}/ping", cwd=folder, env=environment):
            for _ in range(600):
                told = httpx.get(described, trust_env=False).json()
                if isinstance(told, list) and any(worker["status"] == "READY" for worker in told[0]["workers"]):
                    break
                time.sleep(0.1)
            yield inference


if __name__ == "__main__":
    main()
