"""Files that ship in the package: prebuilt base models, one directory in `save_pretrained` layout each.

`add23/` was written by `burnish base add23`; its `recipe.json` records the seed and every setting.
"""

from __future__ import annotations

from pathlib import Path


def embedded_base_path(name: str = "add23") -> Path:
    """The directory of the prebuilt base model for the built-in task `name`.

    Raises:
        ValueError: none ships for that task.
    """
    here = Path(__file__).parent
    found = sorted(recipe.parent.name for recipe in here.glob("*/recipe.json"))
    if name not in found:
        raise ValueError(
            f"no base model for {name!r} ships in the package, only for {', '.join(found)}. Type `burnish base {name}`"
        )
    return here / name
