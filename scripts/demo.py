#!/usr/bin/env python3
"""What ./demo does once the binary is built: a node, a fleet, rows, questions.

The fleet is mosquitto_pub processes, one per topic, fed line by line; what counts as acknowledged is
what they report as PUBACKed. Rows are read back with `chronos client`, questions are asked with
`chronos client` and mosquitto_rr. Nothing here talks to the node in any other way."""
import argparse
import collections
import csv
import datetime
import gzip
import json
import lzma
import math
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

PUBLISHERS_MAX = 48  # processes at a time
UTC = datetime.timezone.utc


# -- The node --------------------------------------------------------------------------------------


class Node:
    def __init__(self, binary, data_dir, address):
        self.binary = binary
        self.process = subprocess.Popen(
            [binary, "single-node", "--data-dir", data_dir, "--address", address],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True)  # Ctrl-C is for the demo, which then stops the node in order
        self.log, ready = [], None
        for line in self.process.stderr:
            self.log.append(line)
            ready = re.fullmatch(r"ready mqtt=(\S+):(\d+) admin=(\S+)\n", line)
            if ready:
                break
        if not ready:
            sys.exit("".join(self.log) + "the node did not start")
        self.host, self.port, self.admin = ready.groups()
        # Nobody reads further, but the pipe must not fill up.
        threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()

    def client(self, *args):
        return [self.binary, "client", "-h", self.host, "-p", self.port, *args]

    def sql(self, text, form="json"):
        went = subprocess.run(self.client("--format", form, "-e", text), capture_output=True, text=True)
        if went.returncode:
            sys.exit(f"{text}\n{went.stderr}")
        return went.stdout

    def rows(self, text):
        return json.loads(self.sql(text))["rows"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


# -- The clients -----------------------------------------------------------------------------------


class Publisher:
    """A mosquitto_pub that publishes to one topic what it is given, a line a message, at QoS 1."""

    def __init__(self, node, topic):
        self.topic, self.sent, self.acked, self.refused, self.code = topic, 0, 0, 0, None
        # Line by line, so that acknowledgements are seen when they come.
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_pub", "-h", node.host, "-p", node.port, "-V", "5", "-q", "1",
             "-t", topic, "-l", "-d"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            answer = re.search(r"received PUBACK \(Mid: \d+, RC:(\d+)\)", line)
            if not answer:
                continue
            if int(answer.group(1)) < 128:
                self.acked += 1
            else:
                self.refused += 1

    def publish(self, lines):
        self.process.stdin.writelines(line + "\n" for line in lines)
        self.process.stdin.flush()
        self.sent += len(lines)

    def close(self):
        """Waits until everything is acknowledged; mosquitto_pub ends then."""
        self.process.stdin.close()
        self.code = self.process.wait()
        self.reader.join()


def progress(node, table, publishers, started, end=""):
    sent, acked = sum(p.sent for p in publishers), sum(p.acked for p in publishers)
    count = node.rows(f"SELECT count(*) FROM {table}")[0][0]
    seconds = time.monotonic() - started
    begin = "\r" if sys.stdout.isatty() else ""
    print(f"{begin}  {seconds:5.1f} s   published {sent:>8,}   acknowledged {acked:>8,}   rows {count:>8,} ",
          end=end, flush=True)


def publish_all(node, table, lines_by_topic):
    """Every topic's lines in their order, topics side by side; shows the rows arriving."""
    waiting, publishers, started = list(lines_by_topic.items()), [], time.monotonic()
    terminal = sys.stdout.isatty()
    running, shown = [], started
    while waiting or running:
        while waiting and len(running) < PUBLISHERS_MAX:
            topic, lines = waiting.pop(0)
            publisher = Publisher(node, topic)
            feeder = threading.Thread(target=feed, args=(publisher, lines), daemon=True)
            feeder.start()
            publishers.append(publisher)
            running.append((publisher, feeder))
        running[0][1].join(0.3)
        running = [(p, f) for p, f in running if f.is_alive()]
        if time.monotonic() - shown > (0.3 if terminal else 2):
            shown = time.monotonic()
            progress(node, table, publishers, started, end="" if terminal else "\n")
    progress(node, table, publishers, started, end="\n")
    for publisher in publishers:
        if publisher.code or publisher.refused:
            print(f"{publisher.topic}: mosquitto_pub ended with {publisher.code}, {publisher.refused} refused")
    return publishers


def feed(publisher, lines):
    try:
        publisher.publish(lines)
        publisher.close()
    except BrokenPipeError:  # mosquitto_pub has gone; what is missing shows in its counts
        publisher.code = publisher.process.wait()


# -- The simulated fleet ---------------------------------------------------------------------------

SITES = ["north", "south", "greenhouse"]
FLEET_TABLE = """CREATE TABLE env (site STRING, device_id STRING, ts TIMESTAMP, temp FLOAT, humidity FLOAT,
    battery FLOAT, PRIMARY KEY (site, device_id, ts)) WITH TOPIC='farm/{site}/{device_id}/env'"""


class Device:
    """Days warm and cool, nights damp; noise; drop-outs; readings late or twice."""

    def __init__(self, number, seed):
        self.random = random.Random(f"{seed}/{number}")
        self.site, self.name = SITES[number % len(SITES)], f"esp-{number:03d}"
        self.topic = f"farm/{self.site}/{self.name}/env"
        self.base = {"north": 14.0, "south": 19.0, "greenhouse": 26.0}[self.site] + self.random.gauss(0, 1)
        self.battery = self.random.uniform(3.6, 4.1)
        self.silent, self.drift, self.late = 0, 0.0, []

    def reading(self, ts):
        hours = ts.hour + ts.minute / 60
        sun = math.sin((hours - 9) / 24 * 2 * math.pi)
        self.drift = 0.98 * self.drift + self.random.gauss(0, 0.15)
        self.battery -= 0.00002
        temp = self.base + 6 * sun + self.drift
        reading = {"ts": ts.strftime("%Y-%m-%dT%H:%M:%SZ"), "temp": round(temp, 2)}
        if self.random.random() < 0.97:  # the second sensor answers not always
            reading["humidity"] = round(min(100, max(5, 70 - 2.2 * (temp - self.base) + self.random.gauss(0, 2))), 1)
        if self.random.random() < 0.1:
            reading["battery"] = round(self.battery, 3)
        return reading

    def publishes(self, ts):
        """What the device publishes at this moment, in its order: none, one or several readings."""
        if self.silent:
            self.silent -= 1
            return []
        if self.random.random() < 0.003:  # out of reach for a while, and what it measured is lost
            self.silent = self.random.randrange(3, 40)
            return []
        reading, out = self.reading(ts), []
        if self.random.random() < 0.03:  # kept in the device's buffer; comes later, out of order
            self.late.append([self.random.randrange(1, 20), reading])
        else:
            out.append(reading)
            if self.random.random() < 0.02:  # its PUBACK got lost on a bad link: the same again
                out.append(reading)
        for waiting in self.late:
            waiting[0] -= 1
        out += [r for left, r in self.late if left == 0]
        self.late = [w for w in self.late if w[0] > 0]
        return out


def fleet_history(args):
    """topic → JSON lines, and what must be in the table: (site, device, ts) → columns."""
    devices = [Device(n, args.seed) for n in range(args.devices)]
    now = datetime.datetime.now(UTC).replace(second=0, microsecond=0)
    steps = args.days * 24 * 12
    lines, want, counts = collections.defaultdict(list), {}, collections.Counter()
    for step in range(steps):
        ts = now - datetime.timedelta(minutes=5 * (steps - step))
        for device in devices:
            for reading in device.publishes(ts):
                lines[device.topic].append(json.dumps(reading))
                key = (device.site, device.name, reading["ts"])
                counts["twice"] += key in want
                counts["late"] += reading["ts"] != ts.strftime("%Y-%m-%dT%H:%M:%SZ")
                want.setdefault(key, {}).update({k: v for k, v in reading.items() if k != "ts"})
    return devices, lines, want, counts


def read_rows(node, table, columns):
    """All rows of a table through the client, as it prints CSV."""
    listed = ", ".join(f'"{c}"' for c in columns)
    process = subprocess.Popen(node.client("--format", "csv", "-e", f"SELECT {listed} FROM {table}"),
                               stdout=subprocess.PIPE, text=True)
    rows = csv.reader(process.stdout)
    next(rows)
    yield from rows
    if process.wait():
        sys.exit(f"reading {table} failed")


def compare_fleet(node, want):
    columns = ["site", "device_id", "ts", "temp", "humidity", "battery"]
    wrong, found = [], set()
    for row in read_rows(node, "env", columns):
        key = tuple(row[:3])
        values = {c: float(v) for c, v in zip(columns[3:], row[3:]) if v != ""}
        if key in found or want.get(key) != values:
            wrong.append(f"  in the table: {row}   published: {want.get(key)}")
        found.add(key)
    wrong += [f"  not in the table: {key}" for key in want.keys() - found]
    return wrong, len(found)


def fleet_questions():
    return [
        ("How warm is it at each site, hour by hour?",
         "SELECT site, time_bucket('1 hour', ts) AS hour, round(avg(temp), 2) AS temp, count(*) AS readings "
         "FROM env GROUP BY site, hour ORDER BY hour DESC, site LIMIT 6"),
        ("What did each device say last?",
         "SELECT device_id, last(temp) AS temp, max(ts) AS at FROM env GROUP BY device_id ORDER BY device_id LIMIT 5"),
        ("Which devices were silent?",
         "SELECT device_id, count(*) AS readings FROM env GROUP BY device_id ORDER BY readings, device_id LIMIT 3"),
    ]


def live(node, devices):
    """One round of readings a second until Ctrl-C."""
    publishers = {d.topic: Publisher(node, d.topic) for d in devices}
    started = time.monotonic()
    while True:
        ts = datetime.datetime.now(UTC).replace(microsecond=0)
        for device in devices:
            publishers[device.topic].publish([json.dumps(r) for r in device.publishes(ts)])
        progress(node, "env", publishers.values(), started)
        time.sleep(1)


# -- A recorded CSV --------------------------------------------------------------------------------

MISSING = {"", "NA", "NaN", "nan", "null", "NULL"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?")


def open_csv(path):
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(pathlib.Path(path).suffix, open)
    return opener(path, "rt", newline="", encoding="utf-8-sig")


def column_name(name):
    return re.sub(r"[^a-z0-9_]+", "_", name.strip().lower()).strip("_") or "column"


def read_csv(args):
    """Columns with their types, and topic → JSON lines; the rows as they must come back."""
    with open_csv(args.csv) as f:
        reader = csv.reader(f)
        columns = [column_name(c) for c in next(reader)]
        records = [r for r in reader if len(r) == len(columns)]
    if len(set(columns)) < len(columns):
        sys.exit(f"{args.csv}: two columns have the same name")
    levels = re.findall(r"\{([^}]*)\}", args.topic)
    unknown = [level for level in levels if level not in columns]
    if unknown:
        sys.exit(f"--topic: {args.csv} has no column {unknown[0]} (it has {', '.join(columns)})")
    types = {}
    for i, column in enumerate(columns):
        values = [r[i] for r in records if r[i] not in MISSING]
        if column not in levels and values and all(NUMBER.fullmatch(v) for v in values):
            types[column] = "FLOAT"
        elif column not in levels and values and all(TIME.fullmatch(v) for v in values):
            types[column] = "TIMESTAMP"
        else:
            types[column] = "STRING"
    lines, want = collections.defaultdict(list), collections.Counter()
    for record in records:
        row = dict(zip(columns, record))
        if any(row[level] in MISSING or re.search(r"[/+#\0]", row[level]) for level in levels):
            sys.exit(f"--topic: a line of {args.csv} has no usable value for {levels}")
        topic = re.sub(r"\{([^}]*)\}", lambda m: row[m.group(1)], args.topic)
        fields = []
        for column in columns:
            value = row[column]
            if column in levels or value in MISSING:
                continue
            plain = types[column] == "FLOAT" and JSON_NUMBER.fullmatch(value)
            text = value if plain else json.dumps(float(value) if types[column] == "FLOAT" else value)
            fields.append(f"{json.dumps(column)}:{text}")
        lines[topic].append("{" + ",".join(fields) + "}")
        want[tuple(comparable(types[c], row[c]) for c in columns)] += 1
    fractional = {c for i, c in enumerate(columns) if types[c] == "FLOAT" and any("." in r[i] for r in records)}
    return columns, types, fractional, lines, want


def comparable(kind, text):
    if text in MISSING:
        return None
    if kind == "FLOAT":
        return float(text)
    if kind == "TIMESTAMP":
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return text


def compare_csv(node, table, columns, types, want):
    got = collections.Counter(
        tuple(comparable(types[c], v) for c, v in zip(columns, row)) for row in read_rows(node, table, columns))
    wrong = [f"  in the table, not in the file: {row}" for row in got - want]
    wrong += [f"  in the file, not in the table: {row}" for row in want - got]
    return wrong, got.total()


def csv_questions(table, columns, types, fractional, topic):
    levels = re.findall(r"\{([^}]*)\}", topic)
    # Measured values have fractions, rather than counters and dates in pieces.
    numbers = sorted((c for c in columns if types[c] == "FLOAT"), key=lambda c: c not in fractional)[:3]
    shown = ", ".join(f'round(avg("{c}"), 3) AS "{c}"' for c in numbers)
    by = f'"{levels[0]}", ' if levels else ""
    return [("How many, and what on average?",
             f"SELECT {by}count(*) AS readings{', ' if shown else ''}{shown} FROM {table}" +
             (f' GROUP BY "{levels[0]}" ORDER BY "{levels[0]}" LIMIT 12' if levels else ""))]


# -- The show --------------------------------------------------------------------------------------


def ask(node, questions):
    for question, text in questions:
        quoted = text.replace('"', '\\"')
        print(f'\n{question}\n  chronos client -e "{quoted}"')
        print(node.sql(text, "table"), end="")
    table = re.search(r"FROM (\w+)", questions[0][1]).group(1)
    count = f"SELECT count(*) FROM {table}"
    print(f"\nThe same over MQTT 5, as any client may ask:\n"
          f"  mosquitto_rr -V 5 -p {node.port} -t '$chronos/sql' -e reply -m \"{count}\"")
    answer = subprocess.run(
        ["mosquitto_rr", "-h", node.host, "-p", node.port, "-V", "5", "-t", "$chronos/sql", "-e", "reply",
         "-m", count], capture_output=True, text=True, timeout=60)
    if answer.returncode:
        sys.exit(answer.stderr)
    print(answer.stdout.rstrip())
    return json.loads(answer.stdout)["rows"][0][0]


def hints(node, topic):
    print(f"""
Try it by hand, in another terminal:
  mosquitto_pub -p {node.port} -q 1 -t sensors/esp-001/temp -m 21.5
  build/release/chronos client -p {node.port} -e "SELECT device_id, metric, value FROM readings"
  build/release/chronos client -p {node.port}                  (a prompt; \\d lists the tables)
  mosquitto_sub -p {node.port} -v -t '{topic}'
  curl -s http://{node.admin}/metrics
  curl -s http://{node.admin}/query -d 'SELECT 1 + 1 AS two'
Ctrl-C ends it.""")


def main():
    parser = argparse.ArgumentParser(prog="./demo")
    parser.add_argument("binary")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--csv")
    parser.add_argument("--topic")
    parser.add_argument("--devices", type=int, default=24)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--address")
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    if bool(args.csv) != bool(args.topic):
        parser.error("--csv and --topic go together")
    if not 1 <= args.devices <= PUBLISHERS_MAX * 100:
        parser.error("--devices: 1 to 4800")
    if args.csv:
        args.csv = os.path.join(os.environ.get("DEMO_CALLER", "."), args.csv)
    os.makedirs("build/demo", exist_ok=True)
    temporary = None if args.data_dir else tempfile.TemporaryDirectory(dir="build/demo", prefix="data-")
    data_dir = args.data_dir or os.path.join(temporary.name, "data")
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    node = Node(args.binary, data_dir, args.address or ("127.0.0.1:0" if args.once else "127.0.0.1:1883"))
    print(f"Chronos on {node.host}:{node.port}, HTTP on {node.admin}, data in {data_dir}")
    status = 1
    try:
        status = show(node, args)
    except KeyboardInterrupt:
        print("\nstopping")
        status = 0
    finally:
        ended = node.stop()
        if ended:
            print("".join(node.log[-20:]) + f"the node ended with {ended}")
            status = status or 1
    return status


def show(node, args):
    if args.csv:
        table = "recorded_" + re.sub(r"\W+", "_", pathlib.Path(args.csv).name.split(".")[0].lower())
        print(f"reading {args.csv} ...")
        columns, types, fractional, lines, want = read_csv(args)
        listed = ", ".join(f'"{c}" {types[c]}' for c in columns)
        node.sql(f"CREATE TABLE {table} ({listed}) WITH TOPIC='{args.topic}', FORMAT=json")
        expected, devices = want.total(), None
        print(f"{sum(map(len, lines.values())):,} lines of {args.csv} to {len(lines)} topics")
    else:
        table = "env"
        node.sql(FLEET_TABLE)
        devices, lines, want, counts = fleet_history(args)
        expected = len(want)
        print(f"{args.days} days of {len(devices)} devices, a reading every 5 minutes: "
              f"{sum(map(len, lines.values())):,} messages, {counts['late']} of them late, {counts['twice']} twice")
    publishers = publish_all(node, table, lines)
    sent, acked = sum(p.sent for p in publishers), sum(p.acked for p in publishers)
    questions = csv_questions(table, columns, types, fractional, args.topic) if args.csv else fleet_questions()
    count = ask(node, questions)

    wrong, rows = (compare_csv(node, table, columns, types, want) if args.csv else compare_fleet(node, want))
    print(f"\npublished {sent:,}, acknowledged {acked:,}; expected rows {expected:,}, in the table {rows:,}")
    if acked != sent or wrong or rows != expected or count != expected:
        print(f"{len(wrong)} differences", *wrong[:10], sep="\n")
        return 1
    print("Every row that was acknowledged is there, with the values that were published.")
    if args.once:
        return 0
    hints(node, args.topic and re.sub(r"\{[^}]*\}", "+", args.topic) or "farm/#")
    if devices:
        live(node, devices)
    node.process.wait()
    return 1


if __name__ == "__main__":
    sys.exit(main())
