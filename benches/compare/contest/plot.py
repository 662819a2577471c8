"""One picture of the table: how fast each contestant is, work by work."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {"ours": "#0072b2", "limit": "#999999", "peer": "#e69f00"}
NAMES = {"ours": "Syncline", "limit": "no engine: the machine's limit", "peer": "peers"}
COLUMNS = 3


def draw(path, told, titles):
    """Draws the cells of these titles; those that were not measured are left out."""
    cells = [cell for title in titles for cell in told["cells"] if cell["title"] == title]
    if not cells:
        return False
    rows = -(-len(cells) // COLUMNS)
    height = max(len(cell["rows"]) for cell in cells)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(15, rows * (0.8 + 0.27 * height)), squeeze=False)
    for axis in axes.flat[len(cells):]:
        axis.axis("off")
    for axis, cell in zip(axes.flat, cells):
        one(axis, cell)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[kind]) for kind in NAMES]
    figure.legend(handles, NAMES.values(), loc="lower center", ncols=3, frameon=False)
    machine = told["machine"]
    figure.suptitle(f"MiB/s, medians of rounds in turns; lines: lowest to highest.  {machine['date']}, "
                    f"{machine['cpu']}, {machine['kernel']}", fontsize=10)
    figure.tight_layout(rect=(0, 0.03, 1, 0.97))
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
    return True


def one(axis, cell):
    rows = [row for row in cell["rows"] if "mib_per_s" in row][::-1]
    rates = [row["mib_per_s"] for row in rows]
    spread = [[rate - row["mib_per_s_min"] for rate, row in zip(rates, rows)],
              [row["mib_per_s_max"] - rate for rate, row in zip(rates, rows)]]
    axis.barh([row["name"] for row in rows], rates, xerr=spread, color=[COLOURS[row["kind"]] for row in rows],
              error_kw={"elinewidth": 0.8, "ecolor": "#444444"})
    axis.set_title(cell["title"], fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
