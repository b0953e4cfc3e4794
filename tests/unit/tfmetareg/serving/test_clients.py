"""The clients of docs/serving: their messages against the exported signatures, and their way over a wire."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

from tests.unit.tfmetareg.serving.conftest import encoded, scan

CLIENTS = Path(__file__).resolve().parents[4] / "docs" / "serving"
FILES = encoded(scan((40, 50))), encoded(scan((44, 36), 1))
IMAGES = [np.stack([scan((20, 24), seed)[..., None]]) for seed in range(2)]
POINTS = np.float32([[[3, 4], [10, 12]]])


def client(name: str):
    spec = importlib.util.spec_from_file_location(name, CLIENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rest, remote = client("client_rest"), client("client_grpc")


def answer(served, signature: str, inputs: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """Calls a signature with tensors of exactly the published names, types and shapes."""
    function = served.signatures[signature]
    specs = function.structured_input_signature[1]
    assert inputs.keys() == specs.keys()
    for name, spec in specs.items():
        assert inputs[name].dtype == spec.dtype
        assert spec.shape.is_compatible_with(inputs[name].shape)
    return {name: value.numpy() for name, value in function(**inputs).items()}


def from_json(served, body: dict) -> tuple[str, dict[str, tf.Tensor]]:
    """Signature and tensors of a body, as TF Serving reads it: into the types of the signature."""
    body = json.loads(json.dumps(body))
    assert body.keys() == {"signature_name", "inputs"}
    specs = served.signatures[body["signature_name"]].structured_input_signature[1]

    def plain(value):
        if isinstance(value, dict):
            assert value.keys() == {"b64"}
            return base64.b64decode(value["b64"], validate=True)
        return [plain(part) for part in value] if isinstance(value, list) else value

    inputs = {name: tf.constant(plain(value), specs[name].dtype) for name, value in body["inputs"].items()}
    return body["signature_name"], inputs


def from_proto(served, request) -> tuple[str, dict[str, tf.Tensor]]:
    inputs = {name: tf.constant(tf.make_ndarray(proto)) for name, proto in request.inputs.items()}
    return request.model_spec.signature_name, inputs


def test_both_clients_ask_for_what_the_signatures_take(served):
    lists = [value.tolist() for value in (*IMAGES, POINTS)]
    for signature, body, request in (
        ("register_png", rest.png_request(*FILES), remote.png_request("tiny", *FILES)),
        ("serving_default", rest.image_request(*lists[:2]), remote.image_request("tiny", *IMAGES)),
        ("register_points", rest.image_request(*lists), remote.image_request("tiny", *IMAGES, POINTS)),
    ):
        assert request.model_spec.name == "tiny"
        (one, by_rest), (other, by_grpc) = from_json(served, body), from_proto(served, request)
        assert one == other == signature
        answers = answer(served, signature, by_rest), answer(served, signature, by_grpc)
        for name in answers[0]:
            np.testing.assert_array_equal(answers[0][name], answers[1][name])


class Servicer(PredictionServiceServicer):
    """A gRPC server that answers as TF Serving does."""

    def __init__(self, served):
        self._served = served

    def Predict(self, request, context):  # noqa: N802 - the name in the protocol
        try:
            outputs = answer(self._served, *from_proto(self._served, request))
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        response = PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


@pytest.fixture(scope="module")
def grpc_server(served):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(Servicer(served), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None)


def command(name: str, folder: Path, *options: str, files=FILES) -> subprocess.CompletedProcess:
    for path, file in zip(("moving.png", "fixed.png"), files):
        (folder / path).write_bytes(file)
    arguments = [
        sys.executable,
        str(CLIENTS / f"{name}.py"),
        "moving.png",
        "fixed.png",
        "warped.png",
        *options,
    ]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=120)


def warped_by(served, files=FILES) -> bytes:
    inputs = {name: tf.constant([file]) for name, file in zip(("moving", "fixed"), files)}
    return answer(served, "register_png", inputs)["warped_bytes"][0]


def test_grpc_over_the_wire(served, grpc_server, tmp_path):
    done = command("client_grpc", tmp_path, "--server", grpc_server)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "warped.png").read_bytes() == warped_by(served)
    found = remote.predict(grpc_server, remote.image_request("tiny", *IMAGES, POINTS))
    np.testing.assert_allclose(found["warped"], served.model(IMAGES)[0], atol=1e-5)
    with pytest.raises(grpc.RpcError) as refusal:
        remote.predict(grpc_server, remote.image_request("tiny", *[255 * image for image in IMAGES]))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "divide 8-bit images by 255" in refusal.value.details()


class Handler(http.server.BaseHTTPRequestHandler):
    """A REST server that answers as TF Serving does: one output alone loses its name."""

    served = None

    def do_POST(self):  # noqa: N802 - the name in http.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            outputs = answer(self.served, *from_json(self.served, body))
            outputs = {
                name: [{"b64": base64.b64encode(file).decode()} for file in value]
                if name.endswith("_bytes")
                else value.tolist()
                for name, value in outputs.items()
            }
            status, content = 200, {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
        except tf.errors.InvalidArgumentError as error:
            status, content = 400, {"error": error.message}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def rest_server(served):
    handler = type("Handler", (Handler,), {"served": served})
    with http.server.HTTPServer(("localhost", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/v1/models/tiny:predict"
        server.shutdown()


def ask_by_rest(served, url: str, folder: Path) -> None:
    """Every kind of request through the REST client, answered and refused."""
    done = command("client_rest", folder, "--url", url)
    assert done.returncode == 0, done.stderr
    assert (folder / "warped.png").read_bytes() == warped_by(served)
    done = command("client_rest", folder, "--url", url, files=(FILES[0], b"no image"))
    assert done.returncode == 1
    assert "HTTP Error 400" in done.stderr and "`fixed` must be a PNG file" in done.stderr
    lists = [value.tolist() for value in (*IMAGES, POINTS)]
    warped, displacement = served.model(IMAGES)
    found = rest.post(url, rest.image_request(*lists[:2]))
    np.testing.assert_allclose(found["warped"], warped, atol=1e-5)
    found = rest.post(url, rest.image_request(*lists))
    np.testing.assert_allclose(found["displacement"], displacement, atol=1e-5)
    assert np.shape(found["moving_points"]) == POINTS.shape


def test_rest_over_the_wire(served, rest_server, tmp_path):
    ask_by_rest(served, rest_server, tmp_path)


@contextlib.contextmanager
def mlflow_server(saved_model: Path, folder: Path):
    """`mlflow models serve` on a free port, from the files of docs/serving; yields its address."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    packed = folder / "mlflow"
    pack = [sys.executable, str(CLIENTS / "mlflow_model.py"), str(saved_model), str(packed)]
    subprocess.run(pack, cwd=folder, env=environment, check=True, timeout=300)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    serve = ["models", "serve", "--model-uri", str(packed), "--env-manager", "local", "--port", str(port)]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *serve],
            cwd=folder,
            env={**environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://localhost:{port}/ping", server, folder / "server.log")
        yield f"http://localhost:{port}/invocations"
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.5)
    pytest.fail(f"mlflow did not start:\n{log.read_text()[-2000:]}")


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed: the extra `serve`"
)
def test_a_model_server_serves_it(served, tmp_path):
    with mlflow_server(served.folder, tmp_path) as url:
        ask_by_rest(served, url, tmp_path)
