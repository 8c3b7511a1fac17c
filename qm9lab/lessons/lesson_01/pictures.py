"""The bytes of a record, and the molecule that its SMILES spells: the pictures of lesson 01."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from qm9lab.course.plots import Style, blank, cell, say

INK = "#222222"

FIELDS = {
    "length": Style("#F5EE9E", "", "#222222"),
    "SMILES": Style("#BFE5D6", "", "#222222"),
    "value": Style("#EBC6DA", "", "#222222"),
}
"""The three fields of a record, in none of the four colours that have a meaning."""


def record_bytes(ax: Axes, raw: bytes, n_smiles_bytes: int, offset_bytes: int = 0) -> Axes:
    """The bytes of one record, 16 to a row, coloured by field, in hexadecimal and as text.

    ``raw`` is the whole record. The rows are labelled from ``offset_bytes``, where it begins.
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
        Patch(facecolor=style.color, edgecolor="#555555", label=label)
        for style, label in zip(FIELDS.values(), labels, strict=True)
    ]
    ax.legend(handles=handles, loc="lower left", ncols=3, fontsize=8, bbox_to_anchor=(0.11, -0.04))
    return ax


def molecule(ax: Axes, smiles: str) -> Axes:
    """The structure that a SMILES spells: carbon atoms are corners, most without a letter.

    RDKit computes where the atoms are; ``rdkit.Chem.Draw`` would need a system library
    (libXrender) that servers and slim images lack.
    """
    from rdkit import Chem
    from rdkit.Chem import rdDepictor

    graph = Chem.MolFromSmiles(smiles)
    ax.set_axis_off()
    if graph is None:
        words = "RDKit cannot draw\nthese bytes as a molecule"
        return say(ax, 0.5, 0.5, words, ha="center", transform=ax.transAxes)
    Chem.Kekulize(graph, clearAromaticFlags=True)  # aromatic: single and double bonds in turn
    rdDepictor.Compute2DCoords(graph)
    places = graph.GetConformer().GetPositions()[:, :2]
    for bond in graph.GetBonds():
        ends = places[[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]]
        along = ends[1] - ends[0]
        across = np.array([-along[1], along[0]]) / np.hypot(*along)
        n_lines = round(bond.GetBondTypeAsDouble())
        for k in range(n_lines):
            line = ends + across * 0.16 * (k - (n_lines - 1) / 2)
            ax.plot(*line.T, color=INK, lw=1.4, solid_capstyle="round")
    for atom, (x, y) in zip(graph.GetAtoms(), places, strict=True):
        is_corner = atom.GetSymbol() == "C" and not atom.GetFormalCharge()
        if not is_corner or graph.GetNumAtoms() <= 2:
            neighbours = [places[other.GetIdx()][0] - x for other in atom.GetNeighbors()]
            is_water = not neighbours and atom.GetSymbol() == "O"
            _label(ax, x, y, atom, hydrogens_left=is_water or sum(neighbours) > 0.1)
    low, high = places.min(0), places.max(0)
    half = max(2.5, (high - low).max() / 2 + 0.8)
    x, y = (low + high) / 2
    ax.set(aspect="equal", xlim=(x - half, x + half), ylim=(y - half, y + half))
    return ax


def _label(ax: Axes, x: float, y: float, atom, hydrogens_left: bool) -> None:
    """An atom's symbol over the ends of its bonds, next to it its hydrogens and its charge."""
    font = {"fontsize": 11, "color": INK, "va": "center", "textcoords": "offset points"}
    white = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    ax.annotate(atom.GetSymbol(), (x, y), (0, 0), ha="center", bbox=white, **font)
    n, charge = atom.GetTotalNumHs(), atom.GetFormalCharge()
    hydrogens = f"H_{{{n}}}" if n > 1 else "H" * n
    sign = {1: "^{+}", -1: "^{-}"}.get(charge, f"^{{{charge:+d}}}" if charge else "")
    left, right = (hydrogens, sign) if hydrogens_left else ("", hydrogens + sign)
    for text, offset, side in ((left, -5, "right"), (right, 5, "left")):
        if text:
            text = rf"$\mathregular{{{text}}}$"
            ax.annotate(text, (x, y), (offset, 0), ha=side, **font)
