"""Numbers made into rows: medians over the rounds, ratios within a round."""

import statistics

MIB = 1 << 20


def rate(cell, sample):
    return cell.size_bytes / MIB / sample["seconds"]


def rows(cell):
    """For each contestant what the table tells. Ratios compare samples of one round."""
    ours = next((row for row in cell.contestants if row.kind == "ours" and row.samples), None)
    limits = [row for row in cell.contestants if row.kind == "limit" and row.samples]
    limit = max(limits, key=lambda row: statistics.median(rate(cell, s) for s in row.samples), default=None)
    for row in cell.contestants:
        told = {"name": row.name, "kind": row.kind, "note": row.note, "version": row.version, "failure": row.failure}
        if row.samples:
            rates = [rate(cell, sample) for sample in row.samples]
            cpu = [sample["cpu_seconds"] / (cell.size_bytes / 1e9) for sample in row.samples]
            told |= {
                "mib_per_s": statistics.median(rates), "mib_per_s_min": min(rates), "mib_per_s_max": max(rates),
                "cpu_s_per_gb": statistics.median(cpu),
                "peak_mib": max(sample["peak_bytes"] for sample in row.samples) / MIB,
                "of_ours": ratio(row, ours) if cell.alike else None,
                "of_limit": ratio(row, limit) if cell.alike else None, "samples": row.samples,
            }
        yield told


def ratio(row, other):
    """How many times as fast as the other one."""
    if other is None:
        return None
    pairs = zip(row.samples, other.samples)
    return statistics.median(theirs["seconds"] / own["seconds"] for own, theirs in pairs)


def told(cell):
    """A cell as the record keeps it."""
    return {"title": cell.title, "about": cell.about, "size_bytes": cell.size_bytes, "rows": list(rows(cell))}


def markdown(cell):
    """A cell of a record."""
    yield from ["", f"## {cell['title']}", ""]
    if cell["about"]:
        yield from [cell["about"], ""]
    yield f"{cell['size_bytes'] // MIB} MiB a pass, {rounds(cell)} rounds."
    yield ""
    yield "| | MiB/s | lowest to highest | CPU s/GB | peak MiB | of ours | of the limit | checks, syncs |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for row in cell["rows"]:
        name = f"**{row['name']}**" if row["kind"] == "ours" else row["name"]
        if "mib_per_s" not in row:
            yield f"| {name} | failed: {row['failure']} | | | | | | {row['note']} |"
            continue
        if row["failure"]:
            # It ended in the middle: what was measured before stands, and says so.
            name = f"{name} (then failed: {row['failure']})"
        of = [f"{row[key]:.2f}" if row[key] else "" for key in ("of_ours", "of_limit")]
        yield (f"| {name} | {row['mib_per_s']:.0f} | {row['mib_per_s_min']:.0f} to {row['mib_per_s_max']:.0f} "
               f"| {row['cpu_s_per_gb']:.3f} | {row['peak_mib']:.0f} | {of[0]} | {of[1]} | {row['note']} |")


def rounds(cell):
    return max(len(row.get("samples", [])) for row in cell["rows"])


RANK_STEPS = {"save_seconds": "save", "finalize_seconds": "finalize", "list_seconds": "list",
              "open_seconds": "open", "verify_seconds": "verify"}


def rank_rows(cells):
    """A checkpoint of more and more ranks."""
    for cell in cells:
        row = cell.contestants[0]
        if row.samples:
            count = int(row.name.split()[0].replace(",", ""))
            told = {name: statistics.median(s[key] for s in row.samples) for key, name in RANK_STEPS.items()}
            peak = max(sample["finalize_bytes"] for sample in row.samples)
            yield {"ranks": count, **told, "finalize_bytes": peak, "bytes_per_rank": peak / count}


def rank_markdown(rows):
    yield from ["", "## Checkpoints of many ranks on file://", "",
                "Shards of 64 bytes and receipts saved by one process, finalized by one rank; seconds, medians.", "",
                "| ranks | save shards and receipts | finalize | list | open | verify | memory of finalize, KiB a rank |",
                "|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        yield (f"| {row['ranks']:,} | {row['save']:.3f} | {row['finalize']:.3f} | {row['list']:.4f} | {row['open']:.4f} "
               f"| {row['verify']:.3f} | {row['bytes_per_rank'] / 1024:.1f} |")
