"""The bytes of a record, and the molecule that its SMILES spells: the pictures of lesson 01."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from qm9lab.course.plots import Look, blank, cell, say

FIELDS = {
    "length": Look("#F5EE9E", "", "#222222"),
    "SMILES": Look("#BFE5D6", "", "#222222"),
    "value": Look("#EBC6DA", "", "#222222"),
}
"""The three fields of a record; none of the four colours above, since they mean something else."""


def record_bytes(ax: Axes, raw: bytes, n_smiles_bytes: int, offset_bytes: int = 0) -> Axes:
    """The bytes of one record, 16 to a row, coloured by field, in hexadecimal and as text.

    Parameters
    ----------
    raw : bytes
        The whole record: 4 bytes of length, ``n_smiles_bytes`` of SMILES, 8 of value.
    offset_bytes : int
        Where the record begins in its file; the rows are labelled from there.
    """
    names = ["length"] * 4 + ["SMILES"] * n_smiles_bytes + ["value"] * 8
    n_rows = -(-len(raw) // 16)
    blank(ax, 18.6, max(n_rows, 2) + 1.4)
    mono = {"ha": "center", "family": "monospace"}
    for k, (byte, name) in enumerate(zip(raw, names, strict=True)):
        y, x = k // 16, 2.4 + k % 16
        text = chr(byte) if name == "SMILES" and 32 < byte < 127 else ""
        cell(ax, x, y, 1, 1, FIELDS[name])
        say(ax, x + 0.5, y + (0.35 if text else 0.5), f"{byte:02x}", fontsize=8, **mono)
        say(ax, x + 0.5, y + 0.75, text, fontsize=7.5, color="#1B6B4F", weight="bold", **mono)
    for row in range(n_rows):
        label = f"{'offset ' if row == 0 else ''}{offset_bytes + 16 * row:,}"
        say(ax, 2.2, row + 0.5, label, fontsize=8, ha="right", color="#555555")
    labels = ("length: 4 bytes, <I", f"SMILES: {n_smiles_bytes} bytes, UTF-8", "value: 8 bytes, <d")
    handles = [
        Patch(facecolor=look.color, edgecolor="#555555", label=label)
        for look, label in zip(FIELDS.values(), labels, strict=True)
    ]
    ax.legend(handles=handles, loc="lower left", ncols=3, fontsize=8, bbox_to_anchor=(0.11, -0.04))
    return ax


def molecule(ax: Axes, smiles: str, size_px: int = 300) -> Axes:
    """The structure that a SMILES spells, drawn by RDKit (hydrogens on carbon left out)."""
    from rdkit import Chem
    from rdkit.Chem import Draw

    ax.set_axis_off()
    drawn = Chem.MolFromSmiles(smiles)
    if drawn is None:
        ax.text(
            0.5,
            0.5,
            "RDKit cannot draw\nthese bytes as a molecule",
            ha="center",
            va="center",
            transform=ax.transAxes,
        )
        return ax
    ax.imshow(np.asarray(Draw.MolToImage(drawn, size=(size_px, size_px))))
    return ax
