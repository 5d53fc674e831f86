#!/usr/bin/env python3
"""Recorded sensor data as messages, and what a database must answer about them.

    recorded.py messages NAME FILE.csv.xz    one line a message: topic, tab, JSON
    recorded.py expect NAME FILE.csv.xz      count, rows per device, and count, min, max and sum of
                                             each number column, computed from the CSV alone

NAME is room, lorawan or beijing. Numbers are passed on as they stand in the file."""
import csv
import json
import lzma
import math
import re
import sys


def rows(path):
    with lzma.open(path, "rt", newline="", encoding="utf-8") as f:
        yield from csv.DictReader(f)


def column(name):
    return re.sub(r"[^a-z0-9_]", "_", name.lower())


def room(row):
    numbers = {column(k): v for k, v in row.items() if k not in ("Date", "Time")}
    hour, rest = row["Time"].split(":", 1)
    ts = row["Date"].replace("/", "-") + f"T{int(hour):02d}:{rest}Z"
    return "room", {"ts": json.dumps(ts)}, numbers


def beijing(row):
    skip = {"No", "year", "month", "day", "hour", "wd", "station"}
    numbers = {column(k): v for k, v in row.items() if k not in skip and v != "NA"}
    ts = "%04d-%02d-%02dT%02d:00:00+08:00" % tuple(int(row[k]) for k in ("year", "month", "day", "hour"))
    text = {"ts": json.dumps(ts)}
    if row["wd"] != "NA":
        text["wd"] = json.dumps(row["wd"])
    return row["station"], text, numbers


# Keys of the LoRaWAN payloads that are numbers in every device that has them.
LORAWAN = ["temperature", "humidity", "vdd", "batteryVoltage", "accMotion", "x", "y", "z"]


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def lorawan(row):
    payload = json.loads(row["payload"])
    numbers = {k: row[k] for k in ("fcnt", "port", "hotspots", "rssi", "snr") if row[k] != ""}
    # Text of the number as it stands: the whole object is passed on verbatim.
    nested = {"payload." + k: v for k, v in payload.items() if k in LORAWAN and number(v)}
    text = {"ts": row["timestamp_ms"], "payload": row["payload"]}
    return row["dev_eui"], text, numbers, nested


READERS = {"room": room, "beijing": beijing, "lorawan": lorawan}


def messages(name, path):
    for row in rows(path):
        device, text, numbers, *_ = READERS[name](row)
        fields = [f"{json.dumps(k)}:{v}" for k, v in {**text, **numbers}.items()]
        print(f"recorded/{name}/{device}\t{{{','.join(fields)}}}")


def expect(name, path):
    total, devices, columns = 0, {}, {}
    for row in rows(path):
        device, _, numbers, *nested = READERS[name](row)
        total += 1
        devices[device] = devices.get(device, 0) + 1
        for k, v in [*numbers.items(), *(nested[0].items() if nested else ())]:
            columns.setdefault(k, []).append(float(v))
    json.dump({
        "count": total,
        "devices": devices,
        "columns": {k: {"count": len(v), "min": min(v), "max": max(v), "sum": math.fsum(v)}
                    for k, v in columns.items()},
    }, sys.stdout)


if __name__ == "__main__":
    {"messages": messages, "expect": expect}[sys.argv[1]](sys.argv[2], sys.argv[3])
