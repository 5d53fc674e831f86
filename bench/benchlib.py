"""What the comparative benches share: servers started and stopped by pid, SQL over MQTT, checks.

Python's standard library only. Each bench prints for a human and leaves its numbers as JSON in
BUILD/bench-data/results/, where bench/run picks them up.
"""

import argparse
import atexit
import csv
import datetime
import json
import math
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

WIDE_COLUMNS = "site STRING, device_id STRING, ts TIMESTAMP, temp FLOAT, humidity FLOAT"
WIDE_TOPIC = "WITH TOPIC='farm/{site}/{device_id}/env'"
WIDE_TABLE = f"CREATE TABLE env ({WIDE_COLUMNS}) {WIDE_TOPIC}"
KEYED_TABLE = (
    f"CREATE TABLE env ({WIDE_COLUMNS}, PRIMARY KEY (site, device_id, ts)) {WIDE_TOPIC}"
)

# Mosquitto with its limits lifted and nothing stored. Without tcp_nodelay (its default) it answers
# 1.5 times as many messages per second, because the kernel then joins its PUBACKs, which it sends one
# by one; with it, a PUBACK of a quiet connection does not wait. Each bench takes what is better for it.
MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest none
sys_interval 0
set_tcp_nodelay {nodelay}
max_inflight_messages 0
max_queued_messages 0
"""


class Failure(Exception):
    """A bench that cannot go on; the text is for the user."""


# --- where things are ---


def parser(description):
    p = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--build", default=default_build(), help="build directory")
    p.add_argument("--data", help="where data directories are made (BUILD/bench-data)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--chronos-args", default="", help="more flags for chronos single-node")
    return p


def default_build():
    """The build directory whose chronos was linked last."""
    build = os.path.join(ROOT, "build")
    found = []
    if os.path.isdir(build):
        for name in os.listdir(build):
            binary = os.path.join(build, name, "chronos")
            sanitized = any(word in name for word in ("asan", "tsan", "fuzz"))
            if os.path.exists(binary) and not sanitized:
                found.append((os.path.getmtime(binary), os.path.join(build, name)))
    return max(found)[1] if found else os.path.join(build, "release")


class Bench:
    """Options, directories and the processes of one bench; use in a with statement."""

    def __init__(self, name, args):
        self.name = name
        self.args = args
        self.build = os.path.abspath(args.build)
        self.data = os.path.abspath(args.data or os.path.join(self.build, "bench-data"))
        self.results = os.path.join(self.build, "bench-data", "results")
        self.processes = []
        os.makedirs(self.data, exist_ok=True)
        os.makedirs(self.results, exist_ok=True)
        if filesystem(self.data) in ("tmpfs", "ramfs"):
            raise Failure(f"{self.data} is in memory; give --data a directory on a disk")

    def __enter__(self):
        atexit.register(self.stop_all)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *exc):
        self.stop_all()

    def stop_all(self):
        for server in list(self.processes):
            server.stop()

    def program(self, name):
        path = os.path.join(self.build, "bench", name)
        if not os.path.exists(path):
            raise Failure(f"{path} is missing: build it first")
        return path

    def fresh_dir(self, name):
        path = os.path.join(self.data, name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        return path

    def save(self, numbers):
        numbers = {"machine": machine(self.data), "seed": self.args.seed, **numbers}
        path = os.path.join(self.results, self.name + ".json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump(numbers, out, indent=1)
        print(f"\nnumbers in {os.path.relpath(path, ROOT)}")

    # --- servers ---

    def mosquitto(self, nodelay=False, more=""):
        """more: lines at the end of its configuration."""
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not os.path.exists(binary):
            raise Failure("mosquitto is missing (Debian: mosquitto)")
        port = free_port()
        directory = self.fresh_dir("mosquitto")
        conf = os.path.join(directory, "mosquitto.conf")
        with open(conf, "w", encoding="utf-8") as out:
            out.write(mosquitto_conf(port, nodelay) + more)
        server = Server(self, [binary, "-c", conf], directory)
        server.address = f"127.0.0.1:{port}"
        server.wait_listening()
        return server

    def chronos(self, directory=None, more=()):
        """A node on a fresh data directory, or on a given one."""
        binary = os.path.join(self.build, "chronos")
        if not os.path.exists(binary):
            raise Failure(f"{binary} is missing: build it first")
        directory = directory or self.fresh_dir("chronos")
        command = [binary, "single-node", "--data-dir", directory, "--address", "127.0.0.1:0"]
        command += self.args.chronos_args.split() + list(more)
        server = Server(self, command, directory)
        server.wait_ready()
        return server

    def null_server(self):
        server = Server(self, [self.program("bench_null_server")], self.fresh_dir("null"))
        server.wait_ready()
        return server

    # --- load ---

    def ingest(self, server, *options, verbose=False, check=True, **named):
        """Runs the load generator against a server; its JSON as a dict."""
        command = [self.program("bench_ingest"), "--address", server.address]
        command += ["--pid", str(server.pid), *map(str, options)]
        for name, value in named.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        if verbose:
            command.append("--verbose")
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0 and check or not done.stdout:
            ended = server.child.poll()
            state = f"which ended with {ended}" if ended is not None else "which still runs"
            raise Failure(
                f"the load generator failed against {server.name}, {state}:\n{server.tail()}"
            )
        return json.loads(done.stdout)

    def subscriber(self, server, topic_filter, qos=0):
        """Starts a subscriber to everything; .finish() tells how much it got."""
        return Subscriber(self, server, topic_filter, qos)

    def fdatasync(self, count=2000):
        command = [self.program("bench_fdatasync"), self.data, "4096", str(count)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def client(self, server, sql, output="json"):
        """One statement through `chronos client`; (stdout, seconds)."""
        command = [os.path.join(self.build, "chronos"), "client", "--leader", server.address]
        command += ["--format", output, "-e", sql]
        start = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        return done.stdout, time.monotonic() - start


class Server:
    """A child process in its own session; ended by its pid and nothing else."""

    def __init__(self, bench, command, directory, label=None):
        """label: of its log, where several of a kind run."""
        self.bench = bench
        self.name = os.path.basename(command[0])
        self.command = command
        self.directory = directory
        self.address = None
        self.admin = None
        self.log = os.path.join(bench.data, (label or self.name) + ".log")
        with open(self.log, "w", encoding="utf-8") as log:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self.child.pid
        bench.processes.append(self)

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-20:])

    def poll(self, what, condition, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name}: no {what} after {timeout_s} s:\n{self.tail()}")
            time.sleep(0.01)

    def wait_ready(self):
        """Waits for the line `ready mqtt=HOST:PORT admin=HOST:PORT`."""

        def ready():
            with open(self.log, encoding="utf-8", errors="replace") as log:
                for line in log:
                    if line.startswith("ready mqtt="):
                        fields = dict(f.split("=", 1) for f in line.split()[1:])
                        self.address, self.admin = fields["mqtt"], fields.get("admin")
                        if self.address == "none":
                            self.address = fields["tls"]
                        return True
            return False

        self.poll("ready line", ready)

    def wait_listening(self):
        def listening():
            host, port = self.address.split(":")
            with socket.socket() as s:
                return s.connect_ex((host, int(port))) == 0

        self.poll("listening socket", listening)

    def rss_anon(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def settled_rss_anon(self, quiet_s=2.0, timeout_s=60):
        """RssAnon once it has not moved for a while."""
        deadline = time.monotonic() + timeout_s
        value, since = self.rss_anon(), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < quiet_s:
            time.sleep(0.1)
            now = self.rss_anon()
            if now != value:
                value, since = now, time.monotonic()
        return value

    def metrics(self, *words):
        """Lines of /metrics that contain one of the words; empty without an admin port."""
        import urllib.request

        if not self.admin:
            return []
        try:
            with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return []
        return [l for l in lines if not l.startswith("#") and any(w in l for w in words)]

    def stop(self):
        if self not in self.bench.processes:
            return
        self.bench.processes.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(120)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not stop in 120 s; killed", file=sys.stderr)
                self.child.kill()
                self.child.wait()
        if self.name == "chronos" and self.child.returncode != 0:
            print(f"chronos ended with {self.child.returncode}:\n{self.tail()}", file=sys.stderr)


class Profile:
    """perf record over a server's threads while a with block runs; prints the top afterwards."""

    def __init__(self, server, lines=30):
        self.server = server
        self.lines = lines
        self.data = os.path.join(server.bench.data, server.name + ".perf")

    def __enter__(self):
        # The CPU clock: virtual machines seldom have hardware counters.
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "499", "-o", self.data]
        self.child = subprocess.Popen(command + ["-p", str(self.server.pid)])
        return self

    def __exit__(self, *exc):
        self.child.send_signal(signal.SIGINT)
        self.child.wait()
        for keys in ("comm", "comm,symbol"):
            report = subprocess.run(
                ["perf", "report", "-i", self.data, "--stdio", "--no-children", "-s", keys],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            ).stdout
            lines = [l for l in report.splitlines() if l and not l.startswith("#")]
            print("\n".join(["profile by " + keys + ":"] + lines[: self.lines]), flush=True)


class Subscriber:
    def __init__(self, bench, server, topic_filter, qos):
        self.child = subprocess.Popen(
            [bench.program("bench_subscribe"), server.address, topic_filter, str(qos)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.child.stderr.readline()
        if line.strip() != "subscribed":
            self.child.kill()
            self.child.wait()
            raise Failure(f"bench_subscribe: {line}")

    def finish(self):
        """Waits until nothing more comes; its counts as a dict."""
        self.child.send_signal(signal.SIGTERM)
        out, err = self.child.communicate(timeout=300)
        if self.child.returncode != 0:
            raise Failure(f"bench_subscribe: {err}")
        return json.loads(out)


def mosquitto_conf(port, nodelay):
    return MOSQUITTO_CONF.format(port=port, nodelay="true" if nodelay else "false")


def free_port():
    """Below the ports of outgoing connections, or one of these could have it by the time it is used."""
    while True:
        port = random.randrange(15000, 32768)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def evict(directory):
    """Drops a stopped server's files from the page cache."""
    for path, _, names in os.walk(directory):
        for name in names:
            fd = os.open(os.path.join(path, name), os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


# --- SQL over MQTT 3.1.1: $chronos/sql/<token> and $chronos/result/<token> ---


class SqlError(Exception):
    pass


class Client:
    """A clean session of MQTT 3.1.1; use in a with statement."""

    def __init__(self, address, timeout_s=600):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.token = os.urandom(8).hex()
        self.packet_id = 0
        client_id = self._string("bench-" + self.token)
        self._send(0x10, self._string("MQTT") + bytes([4, 2, 0, 0]) + client_id)
        self._expect(0x20)

    def publish(self, topic, payload):
        """At QoS 1; returns when it is acknowledged."""
        self.packet_id = self.packet_id % 65535 + 1
        self._send(0x32, self._string(topic) + struct.pack("!H", self.packet_id) + payload)
        self._expect(0x40)

    def close(self):
        try:
            self._send(0xE0, b"")
        finally:
            self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @staticmethod
    def _string(text):
        data = text.encode()
        return struct.pack("!H", len(data)) + data

    def _send(self, kind, body):
        length, header = len(body), bytearray([kind])
        while True:
            header.append(length & 127 | (128 if length > 127 else 0))
            length >>= 7
            if not length:
                break
        self.socket.sendall(bytes(header) + body)

    def _read(self, count):
        data = self.input.read(count)
        if len(data) != count:
            raise Failure("the server closed the SQL connection")
        return data

    def _expect(self, kind):
        """The body of the next packet of a kind; of a PUBLISH, its payload."""
        while True:
            first = self._read(1)[0]
            length = shift = 0
            while True:
                byte = self._read(1)[0]
                length |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
            body = self._read(length)
            if first & 0xF0 == 0x30:
                qos = first >> 1 & 3
                at = 2 + struct.unpack("!H", body[:2])[0]
                if qos:
                    self._send(0x40, body[at : at + 2])
                    at += 2
                body = body[at:]
            if first & 0xF0 == kind & 0xF0:
                if kind == 0x20 and body[1] != 0:
                    raise Failure(f"SQL connection refused, code {body[1]}")
                return body


class Sql(Client):
    def __init__(self, address, timeout_s=600):
        super().__init__(address, timeout_s)
        self._send(0x82, struct.pack("!H", 1) + self._string(self._result_topic()) + b"\1")
        self._expect(0x90)

    def ask(self, sql):
        """The answer as a dict, its parts joined, with wall_us added; raises SqlError."""
        self.packet_id = self.packet_id % 65535 + 1
        start = time.monotonic()
        self._send(
            0x32,
            self._string("$chronos/sql/" + self.token)
            + struct.pack("!H", self.packet_id)
            + sql.encode(),
        )
        whole = None
        while True:
            part = json.loads(self._expect(0x30))
            if "error" in part:
                raise SqlError(f"{part['error'].get('code')}: {part['error'].get('message')}")
            if whole is None:
                whole = part
            else:
                whole["rows"] += part["rows"]
                whole.update((k, v) for k, v in part.items() if k != "rows")
            if part.get("last", True):
                whole["wall_us"] = (time.monotonic() - start) * 1e6
                return whole

    def rows(self, sql):
        return self.ask(sql)["rows"]

    def _result_topic(self):
        return "$chronos/result/" + self.token


# --- is everything there? ---


def timestamp_ms(text):
    """Milliseconds of `2024-12-10T19:13:20.5Z`."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return int(seconds.timestamp()) * 1000 + int((fraction + "000")[:3])


def sum_expected(runs):
    """Of several runs into one table."""
    total = dict(runs[0]["expected"])
    for run in runs[1:]:
        e = run["expected"]
        for key in ("rows", "temp_centi", "humidity_quarters"):
            total[key] += e[key]
        total["ts_ms_min"] = min(total["ts_ms_min"], e["ts_ms_min"])
        total["ts_ms_max"] = max(total["ts_ms_max"], e["ts_ms_max"])
    return total


def verify(server, expected, devices_file=None):
    """Compares the table env with what was published and acknowledged; raises Failure."""
    with Sql(server.address) as sql:
        answer = sql.ask("SELECT count(*), sum(temp), sum(humidity), min(ts), max(ts) FROM env")
        rows, temp, humidity, ts_min, ts_max = answer["rows"][0]
        wanted = {
            "rows": (rows, expected["rows"]),
            # Quarters add up exactly in any order; hundredths to the last bits.
            "sum(humidity)": (humidity, expected["humidity_quarters"] / 4),
            "min(ts)": (timestamp_ms(ts_min), expected["ts_ms_min"]),
            "max(ts)": (timestamp_ms(ts_max), expected["ts_ms_max"]),
        }
        for what, (got, want) in wanted.items():
            if got != want:
                raise Failure(f"stored rows differ: {what} is {got}, published were {want}")
        if not math.isclose(temp, expected["temp_centi"] / 100, rel_tol=1e-9):
            raise Failure(f"stored rows differ: sum(temp) {temp}, {expected['temp_centi'] / 100}")
        if devices_file:
            verify_devices(sql, devices_file)
    return answer


def verify_devices(sql, devices_file):
    got = {
        row[0]: (row[1], row[2], row[3])
        for row in sql.rows(
            "SELECT device_id, count(*), sum(humidity), sum(temp) FROM env GROUP BY device_id"
        )
    }
    with open(devices_file, encoding="ascii") as lines:
        want = {row["device"]: row for row in csv.DictReader(lines)}
    if got.keys() != want.keys():
        raise Failure(f"{len(got)} devices are stored, {len(want)} published")
    for device, row in want.items():
        rows, humidity, temp = got[device]
        if (
            rows != int(row["rows"])
            or humidity != int(row["humidity_quarters"]) / 4
            or not math.isclose(temp, int(row["temp_centi"]) / 100, rel_tol=1e-9, abs_tol=1e-6)
        ):
            raise Failure(f"{device}: stored {got[device]}, published {row}")


# --- words for humans ---


def filesystem(path):
    """Type of the filesystem that a path is on."""
    path = os.path.realpath(path)
    best, kind = "", "?"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, mount, fs, *_ = line.split()
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, fs
    return kind


def machine(data):
    model = "?"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"{filesystem(data)}"
    )


def median(values):
    return statistics.median(values)


def mib(count):
    return f"{count / 2**20:.1f} MiB"


def per_s(value):
    return f"{value:,.0f}/s"


def latencies(h):
    return f"p50 {h['p50_us']:.0f} us, p99 {h['p99_us']:.0f} us, p999 {h['p999_us']:.0f} us"


def main(run):
    try:
        sys.exit(run())
    except (Failure, SqlError) as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        sys.exit(1)
