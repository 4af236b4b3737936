"""Docstrings stand alone: a function's begins with a verb, a class's or a module's with what it is.

Only the first word is judged here; whether a docstring says enough is for a reader to judge.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "structures", "ops", "formats", "backbones", "necks", "heads", "models", "data", "evaluation", "inference",
    "engine", "configs", "tools",
)  # fmt: skip

VERBS = frozenset(
    """
    Accept Add Allow Append Apply Assign Average Blend Block Broadcast Build Cache Call Change Check Choose Clip Close
    Collate Collect Combine Compare Compile Complete Compute Concatenate Configure Connect Convert Correct Copy Count
    Create Crop Cut Decide Declare Decode Decorate Delete Describe Detect Divide Do Download Draw Drop Encode End Enter
    Estimate Evaluate Exchange Exit Export Expose Extract Fill Find Finish Fit Flatten Flip Fold Forget Format
    Freeze Gather Generate Get Give Group Hash Hide Hold Ignore Import Index Init Initialize Insert Iterate Join
    Judge Keep Leave Let Limit Link List Load Locate Lock Log Look Lower Make Map Mark Mask Match Measure Merge Mix
    Move Name Normalize Number Open Order Overwrite Pad Paint Parse Paste Pick Pickle Place Poll Pool Predict
    Prepare Preprocess Print Process Propose Prune Put Quantize Raise Rasterize Read Rearrange Rebuild Record
    Reduce Refuse Register Remove Rename Replace Report Request Require Rescale Reshape Resize Resolve Restore
    Resume Return Rewind Round Run Sample Save Scale Score Search Seed Select Send Separate Serve Set Shard Shift Show
    Shrink Shuffle Skip Slice Smooth Sort Split Stack Start Stop Store Strip Suggest Sum Suppress Swap Sync
    Synchronize Take Tell Test Time Track Train Transfer Transform Translate Transpose Trim Turn Undo Unpack Unpad
    Unshard Update Use Validate Verify Wait Walk Warn Weight Wrap Write Yield Zero
    """.split()  # noqa: SIM905
)
"""Verbs that docstrings of functions begin with. Add yours where it is a plain imperative with an object."""

FRAGMENTS = ("The same", "Of ", "Those", "That ", "Which ", "What ", "With ", "From ", "So many", "As ", "By ", "And ")
"""Beginnings of a docstring that needs its neighbor to be understood."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(path: Path) -> Iterator[tuple[Definition, str]]:
    """Yield every function and class of a file that has a docstring, with its first line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Definition) and (text := ast.get_docstring(node)):
            yield node, text.partition("\n")[0]


def is_property(node: Definition) -> bool:
    """Return whether a function is read as an attribute, so that a noun describes it."""
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any("property" in name for name in names)


def fragments(path: Path) -> list[str]:
    """Return the first lines of a file's docstrings that do not begin as they should, each with its line number."""
    found = []
    for node, line in definitions(path):
        is_function = not isinstance(node, ast.ClassDef) and not is_property(node)
        if (is_function and line.split()[0].rstrip(",") not in VERBS) or line.startswith(FRAGMENTS):
            found.append(f"{path.name}:{node.lineno}: {line}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_a_verb_or_what_it_is(folder):
    """Law: a rule of CONTRIBUTING.md, checked on the syntax tree."""
    found = [line for path in sorted((ROOT / folder).rglob("*.py")) for line in fragments(path)]
    assert not found, "\n".join(found)


def test_docstring_fragments_are_found(tmp_path):
    """Control: two fragments among four docstrings."""
    code = (
        'def first():\n    """Return one."""\n\n\n'
        'def second():\n    """The same on another device."""\n\n\n'
        'class Third:\n    """What is known of an image."""\n\n\n'
        'class Fourth:\n    """A detection."""\n'
    )
    (tmp_path / "module.py").write_text(code)
    assert [line.partition(": ")[0] for line in fragments(tmp_path / "module.py")] == ["module.py:5", "module.py:9"]
