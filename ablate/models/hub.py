"""Files of a model: from a folder, or from the Hugging Face hub and its local cache."""

from __future__ import annotations

from pathlib import Path

from ablate.schema import one_line
from ablate.types import UserError

SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")  # configuration and tokenizer
WEIGHTS = "*.safetensors"
PATIENCE = 5.0  # seconds, for a hub that does not answer


def has_weights(folder: Path) -> bool:
    """Are there weights in safetensors' format?"""
    return any(folder.glob(WEIGHTS))


def fetch(path: str, revision: str | None = None, weights: bool = False) -> Path:
    """The folder with a model's files: `path` itself, or the hub's files, brought here if they are not yet.

    weights: those too, not only configuration and tokenizer. A repository that was fetched before is used
    without the network. Raises UserError, soon, if there is no such model or the hub cannot be reached.
    """
    folder = Path(path)
    if folder.is_dir():
        if (folder / "config.json").is_file():
            return folder
        what = "an adapter alone" if (folder / "adapter_config.json").is_file() else "no config.json"
        raise UserError(
            f"model.path={path} holds {what}: it must be a folder that save_pretrained of a whole model wrote"
        )
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1 or folder.exists():
        raise UserError(
            f"model.path={path} is no folder here and no hub id, which has the form owner/name: "
            "for example Qwen/Qwen2.5-0.5B-Instruct"
        )
    return _from_hub(path, revision, weights)


def _from_hub(path: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = f"model.path={path}" + (f" model.revision={revision}" if revision else "")
    try:
        return Path(
            snapshot_download(
                path,
                revision=revision,
                allow_patterns=[*SMALL, WEIGHTS] if weights else list(SMALL),
                etag_timeout=PATIENCE,
            )
        )
    except GatedRepoError:
        raise UserError(
            f"{named}: access to this repository is granted by its owner: ask on {constants.ENDPOINT}/{path} "
            "and set HF_TOKEN, or set model.path to a folder"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{named}: the repository has no such revision") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"{named}: there is no such folder here and no such repository on {constants.ENDPOINT} (or it is "
            "private: set HF_TOKEN)"
        ) from None
    except Exception as error:  # no network, a proxy's refusal, a full disk
        cause = error.__cause__ or error
        raise UserError(
            f"{named} cannot be fetched from {constants.ENDPOINT} ({type(cause).__name__}: "
            f"{one_line(cause)[:120]}): set model.path to a folder with the model"
        ) from error
