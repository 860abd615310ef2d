"""A model's second sync: cloud-connect, DuckDB and Polars in turn. See README.md beside this file."""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

COLUMNS = ["ltv", "orders", "last_order_at", "country", "tier", "subscribed", "city", "score", "days"]

PROJECT = """profile:
  identities:
    - field: email
      normalize: [trim, lowercase]
connections:
  files: { type: local, path: data }
"""
MODEL = f"""name: Customers
connection: files
primary_key: email
external_key: email
activated_fields: [{", ".join(COLUMNS)}]
guard: {{ max_removed: 1000000000 }}
"""


def generate(rows: int, folder: pathlib.Path) -> None:
    """Two results: `old.parquet`, and `new.parquet` with 1 % changed, 0.5 % gone, 0.5 % new, shuffled."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET threads = 2")

    def draw(salt: int, modulus: int) -> str:
        return f"(hash(i + {salt * 1_000_003}) % {modulus})"

    def customers(low: int, high: int) -> str:
        return f"""SELECT 'customer_' || i || '@example.com' AS email,
            {draw(1, 100000)} / 100.0::DOUBLE AS ltv, {draw(2, 50)}::INT AS orders,
            TIMESTAMP '2024-01-01' + to_seconds({draw(3, 63072000)}::BIGINT) AS last_order_at,
            ['US', 'DE', 'FR', 'BR', 'JP', 'IN'][1 + {draw(4, 6)}::INT] AS country,
            ['gold', 'silver', 'bronze'][1 + {draw(5, 3)}::INT] AS tier, {draw(6, 2)} = 0 AS subscribed,
            'city_' || {draw(7, 5000)} AS city, {draw(8, 1000)} / 1000.0 AS score, {draw(9, 365)}::INT AS days
            FROM range({low}, {high}) t(i)"""

    write = "(FORMAT parquet, COMPRESSION zstd)"
    db.execute(f"COPY ({customers(0, rows)}) TO '{folder}/old.parquet' {write}")
    changed = f"SELECT * REPLACE (CASE WHEN hash(email) % 100 = 0 THEN ltv + 1 ELSE ltv END AS ltv) FROM ({customers(rows // 200, rows + rows // 200)})"
    db.execute(f"COPY ({changed} ORDER BY hash(email || 'order')) TO '{folder}/new.parquet' {write}")


def duckdb_sync(folder: str) -> None:
    import duckdb

    db = duckdb.connect()
    db.execute("SET threads = 2")
    db.execute("SET preserve_insertion_order = false")
    columns = lambda side: ", ".join(f"{side}.{c}" for c in COLUMNS)
    db.execute(
        f"""COPY (SELECT coalesce(n.email, o.email) AS email,
            CASE WHEN o.email IS NULL THEN 'added' WHEN n.email IS NULL THEN 'removed' ELSE 'changed' END AS change,
            {columns("n")} FROM '{folder}/old.parquet' o FULL OUTER JOIN '{folder}/new.parquet' n ON o.email = n.email
            WHERE o.email IS NULL OR n.email IS NULL OR ({columns("o")}) IS DISTINCT FROM ({columns("n")}))
            TO '{folder}/duckdb_changes.parquet' (FORMAT parquet)"""
    )
    db.execute(f"COPY (SELECT * FROM '{folder}/new.parquet') TO '{folder}/duckdb_new.parquet' (FORMAT parquet, COMPRESSION zstd)")


def polars_sync(folder: str) -> None:
    import polars as pl

    old, new = pl.scan_parquet(f"{folder}/old.parquet"), pl.scan_parquet(f"{folder}/new.parquet")
    old_hashes = old.select("email", pl.struct(COLUMNS).hash().alias("old_hash"))
    hashed = new.with_columns(pl.struct(COLUMNS).hash().alias("hash"))
    changed = hashed.join(old_hashes, on="email", how="left").filter(
        pl.col("old_hash").is_null() | (pl.col("hash") != pl.col("old_hash"))
    )
    removed = old_hashes.join(new.select("email"), on="email", how="anti")
    changed, removed = pl.collect_all([changed, removed], engine="streaming")
    changed.write_parquet(f"{folder}/polars_changed.parquet")
    removed.write_parquet(f"{folder}/polars_removed.parquet")
    new.sink_parquet(f"{folder}/polars_new.parquet")


def measure(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MiB of a process."""
    begun = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - begun
    if status:
        sys.exit(f"{command} failed")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("rows", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-limit", default="512MiB")
    parser.add_argument("--without", nargs="*", default=[], choices=["duckdb", "polars"])
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cc-bench-"))
    try:
        bench(arguments, folder)
    finally:
        shutil.rmtree(folder)


def bench(arguments: argparse.Namespace, folder: pathlib.Path) -> None:
    # in a process of its own: the kernel counts a parent's memory into what it starts
    subprocess.run([sys.executable, __file__, "--generate", str(arguments.rows), str(folder)], check=True)
    project = folder / "project"
    (project / "models").mkdir(parents=True)
    (project / "data").mkdir()
    (project / "cloud-connect.yml").write_text(PROJECT)
    (project / "models/customers.yml").write_text(MODEL)
    (project / "models/customers.sql").write_text("SELECT * FROM customers")
    data, state, first = project / "data/customers.parquet", project / ".cloud-connect", folder / "first"
    run = [arguments.program, "--project", str(project), "--memory-limit", arguments.memory_limit, "run", "--output", "json"]
    os.link(folder / "old.parquet", data)
    wall, cpu, peak = measure(run)
    print(f"first sync       {wall:7.2f} s  {cpu:7.2f} CPU s  {peak:7.0f} MiB")
    data.unlink()
    os.link(folder / "new.parquet", data)
    state.rename(first)
    contestants = {"cloud-connect": run}
    for peer in ("duckdb", "polars"):
        if peer not in arguments.without:
            contestants[peer] = [sys.executable, __file__, "--peer", peer, str(folder)]
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, command in contestants.items():
            if name == "cloud-connect":
                shutil.rmtree(state, ignore_errors=True)
                shutil.copytree(first, state)
            seen[name].append(measure(command))
    report = json.loads(subprocess.check_output([arguments.program, "--project", str(project), "runs", "--output", "json"]))[0]
    print("found:", {k: report[k] for k in ("rows", "added", "changed", "removed", "unchanged")})
    medians = {name: [statistics.median(values) for values in zip(*runs)] for name, runs in seen.items()}
    for name, (wall, cpu, peak) in medians.items():
        print(f"{name:<16} {wall:7.2f} s  {cpu:7.2f} CPU s  {peak:7.0f} MiB")
    ours = medians["cloud-connect"]
    for name in medians.keys() - {"cloud-connect"}:
        wall, cpu, peak = (a / b for a, b in zip(ours, medians[name]))
        print(f"cloud-connect / {name}: wall {wall:.2f}, CPU {cpu:.2f}, peak memory {peak:.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--peer":
        {"duckdb": duckdb_sync, "polars": polars_sync}[sys.argv[2]](sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[1] == "--generate":
        generate(int(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        main()
