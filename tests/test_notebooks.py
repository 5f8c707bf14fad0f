"""Every notebook runs from top to bottom, equals its text twin, and is committed with what it showed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from cost import slow_but

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 400_000
FILES = {"text": {"XBM_MINILM": "minilm_l6_f16.safetensors", "XBM_MINILM_TOKENIZER": "minilm_l6_tokenizer.json"}}
"""What a notebook takes from the hub where these variables name no file; a test has the reference data, or skips."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def complaints(notebook: Any) -> list[str]:
    """Errors, and whatever went to standard error: warnings go there."""
    errors = [f"{o.ename}: {o.evalue}" for o in outputs(notebook) if o.output_type == "error"]
    return errors + [o.text for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr"]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def text_of(notebook: Any) -> str:
    """Everything that its outputs say, pictures left out."""
    said = [o.get("text", "") for o in outputs(notebook)]
    said += [str(v) for o in outputs(notebook) for kind, v in o.get("data", {}).items() if kind != "image/png"]
    return "\n".join(said)


def test_there_are_notebooks_and_each_has_its_twin() -> None:
    names = {path.stem for path in NOTEBOOKS}
    assert names and names == {path.stem for path in (ROOT / "notebooks").glob("*.py")}


@each_notebook
def test_text_and_notebook_are_in_sync(path: Path) -> None:
    text = jupytext.read(path.with_suffix(".py"))
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (text, read(path))]
    assert cells[0] == cells[1], f"run: jupytext --sync {path.name}"
    assert text.metadata.kernelspec.name == read(path).metadata.kernelspec.name == "python3"


@each_notebook
def test_committed_outputs_are_whole_small_and_of_no_one_machine(path: Path) -> None:
    notebook = read(path)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run it from top to bottom before committing"
    assert complaints(notebook) == []
    assert path.stat().st_size <= MAX_BYTES
    said = text_of(notebook)
    assert not [place for place in ("/tmp", "/home", "/root", str(ROOT), str(Path.home())) if place in said]


@pytest.mark.parametrize("path", slow_but(["my_own"], {path.stem: path for path in NOTEBOOKS}))
@pytest.mark.timeout(900)  # a minute or two where it has two cores to itself
def test_runs_and_shows_what_is_committed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for variable, file in FILES.get(path.stem, {}).items():
        if variable not in os.environ:
            monkeypatch.setenv(variable, str(request.getfixturevalue("shared_data")(file)))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # not the user's profile and history
    monkeypatch.delenv("MPLBACKEND", raising=False)  # conftest's choice would show no picture
    work = tmp_path / "work"
    work.mkdir()
    committed = read(path)
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    # Devices as in every test: on one, a CPU reads its batch in pieces, the same sums, which compile for half a minute.
    client.execute(env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"})
    assert complaints(notebook) == []
    assert pictures(notebook) == pictures(committed) > 0
    assert not list(work.iterdir()), "a notebook leaves nothing in the reader's folder"
