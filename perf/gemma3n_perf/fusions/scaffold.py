"""What ``gemma3n-perf fusion new`` writes: a fusion that runs and changes nothing yet, and the tests it must pass."""

import keyword
import re
import textwrap
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.store.files import require_writable

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

_MODULE = '''
    """One sentence: what costs time in the decode step, and what this fusion does about it."""

    from collections.abc import Callable
    from typing import Any

    from gemma3n_perf.fusions import patching
    from gemma3n_perf.fusions.types import Declared, Fusion


    def apply(model: Any) -> None:
        """Replace MLP.__call__ of this one model at one position of batch 1; prefill stays mlx-vlm's."""
        for layer in model.language_model.model.layers:
            patching.wrap(layer.mlp, "__call__", _mlp(layer.mlp))


    def _mlp(mlp: Any) -> Callable[..., Any]:
        # Prepare here what no token changes. Evaluate small arrays (mx.eval); never copy large weights.

        def call(original: Any, x: Any) -> Any:
            if x.shape[:2] != (1, 1):
                return original(x)
            # Your version of mlx_vlm.models.gemma3n.language.MLP.__call__ goes here, in place of the original.
            return original(x)

        return call


    FUSION = Fusion(
        name="@NAME@",
        summary="what it does, in one line",
        replaces=("MLP.__call__",),
        graph=Declared(fewer=("nodes",)),
        file=__file__,
        apply=apply,
    )
'''

_TEST = '''
    from typing import Any

    from tests.fusions import check


    def test_the_graph_changes_as_declared() -> None:
        """Fewer operations are dispatched than without it."""
        assert check.complaints("@NAME@") == ()


    def test_it_computes_the_same(nano_model: Any) -> None:
        """Each step stays within what rounding allows, across the window's edge and the cache's growth."""
        assert check.worst_ratio(nano_model, "@NAME@") <= 1.0


    def test_the_unfused_model_stays_as_it_was(nano_model: Any) -> None:
        """Applying it changes one model object, no weights and no other model."""
        check.assert_leaves_others_alone(nano_model, "@NAME@")
'''


_TAKEN = ("admitted", "all")
_LONGEST = 60
"""Characters of a name: files and folders are called by it."""
"""Names of a file beside the evidence, and of all fusions together."""


def write(name: str, root: Path, known: tuple[str, ...]) -> tuple[Path, Path]:
    """Write the module and the test of a new fusion into the checkout at ``root``; returns both paths.

    Raises UsageError for a name that is taken or is not lower-case words joined by hyphens, and where a file is there.
    """
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(module) or name in _TAKEN:
        raise UsageError(
            f"{name!r} cannot name a fusion",
            expected=f"lower-case words joined by hyphens, for instance fused-norms, at most {_LONGEST} characters; "
            f"not {' or '.join(_TAKEN)}",
        )
    package = root / "perf" / "gemma3n_perf" / "fusions"
    if not package.is_dir():
        raise UsageError(
            f"{root} is no checkout of gemma3n-perf",
            expected=f"a folder {package}",
            remedy="run this in a clone, or say which: --into FOLDER",
        )
    files = {package / f"{module}.py": _MODULE, root / "tests" / "fusions" / f"test_{module}.py": _TEST}
    taken = [path for path in files if path.exists()]
    if name in known or taken:
        where = f": {taken[0]} is there" if taken else ""
        raise UsageError(f"there is a fusion {name} already{where}", expected="a new name", remedy="edit that one")
    for path in files:
        require_writable(path)
    made: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(textwrap.dedent(text).lstrip("\n").replace("@NAME@", name))
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    first, second = files
    return first, second
