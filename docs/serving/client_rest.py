"""Registers two PNG files through TF Serving's REST interface, with Python alone.

python client_rest.py moving.png fixed.png warped.png
python client_rest.py moving.png fixed.png warped.png --url http://localhost:8080/invocations    (mlflow)
"""

from __future__ import annotations

import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

URL = "http://localhost:8501/v1/models/tfmetareg:predict"


def png_request(moving: bytes, fixed: bytes) -> dict:
    """The body that asks to register a pair of PNG files."""
    files = {"moving": moving, "fixed": fixed}
    inputs = {name: [{"b64": base64.b64encode(file).decode()}] for name, file in files.items()}
    return {"signature_name": "register_png", "inputs": inputs}


def image_request(moving: list, fixed: list, fixed_points: list | None = None) -> dict:
    """The body that asks to register images, and to carry points.

    Args:
        moving, fixed: nested lists of floats in [0, 1], (batch, height, width, 1); `array.tolist()`.
        fixed_points: nested lists, (batch, n, 2), (row, column), pixels.
    """
    inputs = {"moving": moving, "fixed": fixed}
    if fixed_points is None:
        return {"signature_name": "serving_default", "inputs": inputs}
    return {"signature_name": "register_points", "inputs": {**inputs, "fixed_points": fixed_points}}


def post(url: str, body: dict) -> dict | list:
    """The outputs of the server's answer; with a single one, TF Serving leaves its name out.

    Raises:
        SystemExit: the request was refused; the message is the server's, with the model's sentence in it.
    """
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{error}: {error.read().decode()}") from None
    return content["outputs"] if "outputs" in content else content["predictions"]


def warped_file(outputs: dict | list) -> bytes:
    """The first warped PNG file of an answer to `png_request`."""
    files = outputs["warped_bytes"] if isinstance(outputs, dict) else outputs
    return base64.b64decode(files[0]["b64"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("moving", type=Path)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("warped", type=Path)
    parser.add_argument("--url", default=URL)
    arguments = parser.parse_args()
    body = png_request(arguments.moving.read_bytes(), arguments.fixed.read_bytes())
    arguments.warped.write_bytes(warped_file(post(arguments.url, body)))


if __name__ == "__main__":
    main()
