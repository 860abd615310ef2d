"""Compare readers of PostgreSQL. See README.md beside this file."""

import argparse
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SQL = "SELECT email, ltv, orders, last_order_at, country, tier, subscribed, city, score, days FROM customers"

FILL = """
CREATE TABLE customers AS
SELECT 'user_' || i || '@example.com' AS email,
       (abs(hashint8(i)) % 100000) / 100.0::float8 AS ltv,
       abs(hashint8(i + 1)) % 50 AS orders,
       timestamp '2024-01-01' + (abs(hashint8(i + 2)) % 63072000) * interval '1 second' AS last_order_at,
       (ARRAY['US','DE','FR','BR','JP','IN'])[1 + abs(hashint8(i + 3)) % 6] AS country,
       (ARRAY['gold','silver','bronze'])[1 + abs(hashint8(i + 4)) % 3] AS tier,
       abs(hashint8(i + 5)) % 2 = 0 AS subscribed,
       'city_' || (abs(hashint8(i + 6)) % 5000) AS city,
       (abs(hashint8(i + 7)) % 1000) / 1000.0::float8 AS score,
       abs(hashint8(i + 8)) % 365 AS days
FROM generate_series(0::int8, {rows} - 1) AS i
"""


def programs():
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    if found:
        return pathlib.Path(found).parent
    sys.exit("install PostgreSQL's server programs (Debian: the package postgresql)")


def server_command(name, *arguments):
    command = [str(programs() / name), *map(str, arguments)]
    # the server refuses to run as root
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


class Cluster:
    def __init__(self, directory, rows):
        self.data = pathlib.Path(directory) / "data"
        fresh = not self.data.exists()
        if fresh:
            if os.geteuid() == 0:
                shutil.chown(directory, "postgres")
            self.run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "-D", self.data)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=1GB -c max_wal_size=4GB"
        self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.data / "server.log", "-o", options)
        try:
            if fresh:
                self.psql(FILL.format(rows=rows))
                self.psql("VACUUM (FREEZE, ANALYZE) customers")
            self.psql("SELECT count(*) FROM customers")
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def run(name, *arguments):
        subprocess.run(server_command(name, *arguments), check=True, stdout=subprocess.DEVNULL, cwd="/")

    def psql(self, sql):
        psql = [str(programs() / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-X", "-q", "-c", sql]
        subprocess.run(psql, check=True, stdout=subprocess.DEVNULL)

    def stop(self):
        self.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", self.data)


def read_adbc(port):
    import adbc_driver_postgresql.dbapi as dbapi

    with dbapi.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres") as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        cursor.execute(SQL)
        rows = sum(batch.num_rows for batch in cursor.fetch_record_batch())
        return rows, time.perf_counter() - began


def read_connectorx(port):
    import connectorx

    began = time.perf_counter()
    table = connectorx.read_sql(f"postgresql://postgres@127.0.0.1:{port}/postgres", SQL, return_type="arrow", protocol="binary")
    return table.num_rows, time.perf_counter() - began


def read_nothing(port):
    """The server's own share: psql throws the rows of the same COPY away."""
    psql = [str(programs() / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-X", "-q"]
    began = time.perf_counter()
    subprocess.run([*psql, "-c", f"COPY ({SQL}) TO STDOUT (FORMAT binary)"], check=True, stdout=subprocess.DEVNULL)
    elapsed = time.perf_counter() - began
    count = subprocess.run([*psql, "-t", "-A", "-c", "SELECT count(*) FROM customers"], check=True, capture_output=True)
    return int(count.stdout), elapsed


PEERS = {"adbc": read_adbc, "connectorx": read_connectorx, "psql": read_nothing}


def measure(reader, port, extract):
    if reader == "ours":
        parameters = ["host=127.0.0.1", f"port={port}", "user=postgres", "database=postgres", "sslmode=disable"]
        command = [extract, "postgres", *parameters, SQL]
    else:
        command = [sys.executable, __file__, "--read", reader, "--port", str(port)]
    # the child's own peak, not the largest of all children so far
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{reader} failed")
    if reader == "ours":
        rows, seconds = re.search(r"^(\d+) rows .* ([\d.]+) s,", output).groups()
        return int(rows), float(seconds), usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
    rows, seconds = json.loads(output)
    return rows, seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def compare(arguments, directory):
    readers = ["ours", *PEERS]
    cluster = Cluster(directory, arguments.rows)
    try:
        times, memory, work = ({reader: [] for reader in readers} for _ in range(3))
        for number in range(arguments.rounds + 1):
            for reader in readers:
                rows, seconds, peak, processor = measure(reader, cluster.port, arguments.extract)
                if rows != arguments.rows:
                    sys.exit(f"{reader} read {rows} rows of {arguments.rows}")
                # the first round warms the server's cache
                if number:
                    times[reader].append(seconds)
                    memory[reader].append(peak)
                    work[reader].append(processor)
                    print(f"round {number} {reader:<11} {seconds:7.2f} s", flush=True)
    finally:
        cluster.stop()
    ours = statistics.median(times["ours"])
    print(f"\n{arguments.rows} rows x 10 columns, median of {arguments.rounds}")
    for reader in readers:
        median = statistics.median(times[reader])
        print(
            f"{reader:<11} {median:7.2f} s  {arguments.rows / median:12,.0f} rows/s  {median / ours:5.2f} x ours"
            f"  peak {max(memory[reader]):6.0f} MiB  processor {statistics.median(work[reader]):6.2f} s"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--extract", default="target/release/examples/extract")
    parser.add_argument("--keep", metavar="DIR", help="keep the cluster in this directory")
    parser.add_argument("--read", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(PEERS[arguments.read](arguments.port)))
    elif arguments.keep:
        os.makedirs(arguments.keep, exist_ok=True)
        compare(arguments, arguments.keep)
    else:
        with tempfile.TemporaryDirectory(prefix="cc-bench-") as directory:
            compare(arguments, directory)


if __name__ == "__main__":
    main()
