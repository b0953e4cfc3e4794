"""Hook of mkdocs: docs/start.ipynb becomes the page start.md, with the outputs that the notebook holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook at the top of docs/."""
    for notebook in sorted(Path(config.docs_dir).glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        page = "\n\n".join(map(_cell, cells))
        files.append(File.generated(config, f"{notebook.stem}.md", content=page))
    return files


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    if cell["cell_type"] != "code" or not source:
        return ""
    return "\n\n".join([_fenced(source, "python"), *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    """The richest form of an output that a page can show."""
    if output["output_type"] == "stream":
        return _fenced("".join(output["text"]), "text")
    data = {kind: "".join(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/")}
    if "text/html" in data:
        return f"<div>\n{data['text/html']}\n</div>"
    if image := output.get("data", {}).get("image/png"):
        return f'<img alt="" src="data:image/png;base64,{"".join(image.split())}">'
    return _fenced(data["text/plain"], "text") if "text/plain" in data else ""


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
