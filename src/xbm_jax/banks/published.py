"""Published banks: a bank with its chip in one file, on disk or on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from xbm_jax.banks.bank import MaskBank, describe
from xbm_jax.banks.bank_card import read_card
from xbm_jax.banks.chip_store import load_chip, save_chip
from xbm_jax.banks.exchange import chip_in
from xbm_jax.banks.shelf import CHIP_KEY, ENDING, FileShelf
from xbm_jax.errors import BankError, WeightsError, XbmError
from xbm_jax.models import Network
from xbm_jax.models.weights.files import HUB, downloaded
from xbm_jax.paths import as_path
from xbm_jax.storage import store

__all__ = ["load_bank", "publish", "unpack"]

FILE = f"bank{ENDING}"


def load_bank(where: str | Path, network: Network | None = None) -> MaskBank:
    """A bank with its chip, ``bank.chip``: everything that ``xbm.serve(bank.chip, bank)`` needs.

    Args:
        where: a folder with the chip in ``chip`` (as ``xbm adapt`` makes it), a file of
            ``bank.export(file, chip=True)``, or ``hf://owner/repository`` (``@revision`` may follow; needs
            ``huggingface-hub``), whose file is downloaded once. A bank in a file is only read.
        network: the structure, for a backbone that is not a registered model.

    Raises:
        BankError: no bank there, no chip with it, or something damaged. ModelError: a structure is needed.
    """
    path = _local(str(where)) if str(where).startswith(HUB) else as_path(where)
    if path.suffix == ENDING:
        return MaskBank.open(path, chip_in(FileShelf(path), network))
    read_card(path)
    if not store.exists(path / "chip"):
        allowed = f"a bank with its chip in {path / 'chip'}; or MaskBank.open(folder, chip)"
        raise BankError("bank", str(path), allowed)
    return MaskBank.open(path, load_chip(path / "chip", network))


def unpack(where: str | Path, folder: str | Path, names: Any = None, *, replace: bool = False) -> list[str]:
    """Put the tasks of an exported or published bank into the bank in ``folder``; gives their names.

    A bank that is not there is made, with the chip that came with the file in ``<folder>/chip``.

    Raises:
        BankError: see :meth:`MaskBank.import_`; or no bank there and a file without a chip.
    """
    path, folder = _local(str(where)) if str(where).startswith(HUB) else as_path(where), as_path(folder)
    if (folder / "bank.json").exists():
        return load_bank(folder).import_(path, names, replace=replace)
    chip = chip_in(FileShelf(path), None)
    save_chip(chip, folder / "chip")
    return MaskBank.create(folder, chip).import_(path, names, replace=replace)


def publish(bank: MaskBank, repository: str, *, private: bool = False) -> str:
    """Upload a bank and its chip to ``owner/repository`` on the hub as one file; gives its address, ``hf://...``.

    A repository that is not there is made. One without a README gets one that says how to load the bank.

    Raises:
        BankError: no such client (``pip install 'xbm_jax[hub]'``), another name, or the hub did not take it.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise BankError("repository", repository, "owner/repository")
    try:
        from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BankError("repository", repository, "`pip install 'xbm_jax[hub]'` first") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        if bank.folder.suffix == ENDING and CHIP_KEY in FileShelf(bank.folder).file.keys:
            path = bank.folder
        else:
            bank.export(path, chip=True)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            if not api.file_exists(repository, "README.md"):
                text = _readme(bank, repository).encode()
                api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id=repository)
            api.upload_file(path_or_fileobj=str(path), path_in_repo=FILE, repo_id=repository)
        except XbmError:
            raise
        except Exception as error:  # the client's errors and those of the network library below it
            allowed = f"a repository that takes the bank ({type(error).__name__}: {error})"
            raise BankError("repository", repository, allowed) from error
    return f"{HUB}{repository}"


def _local(address: str) -> Path:
    """The file of ``hf://owner/repository``, downloaded once."""
    if address.removeprefix(HUB).count("/") != 1:
        raise BankError("bank", address, "hf://owner/repository")
    try:
        return downloaded(f"{address}/{FILE}")
    except WeightsError as error:
        raise BankError("bank", address, error.allowed) from error


def _readme(bank: MaskBank, repository: str) -> str:
    told = describe(bank.folder)
    tasks = {name: (task.get("method", {}).get("name"), task.get("classes")) for name, task in told["tasks"].items()}
    rows = [f"| {name} | {method} | {classes} |" for name, (method, classes) in tasks.items()]
    return "\n".join(
        [
            "---\nlibrary_name: xbm_jax\n---\n",
            f"A bank of {len(rows)} tasks on one simulated crossbar chip of {told['chip']['network']}.\n",
            "```python\nimport xbm_jax as xbm\n",
            f'bank = xbm.load_bank("{HUB}{repository}")',
            "predict = xbm.serve(bank.chip, bank)",
            f'predict(images, task="{next(iter(told["tasks"]), "...")}")\n```\n',
            "| task | method | classes |\n|---|---|---|",
            *rows,
            "",
        ]
    )
