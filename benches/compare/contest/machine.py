"""What the numbers were measured on, and with."""

import datetime
import os
import platform
import subprocess

PROGRAMS = {"fio": ["fio", "--version"], "dd": ["dd", "--version"], "zstd": ["zstd", "--version"]}


def said(*command):
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return " ".join(text.split("\n", 1)[0].split())


def field(path, name):
    with open(path, encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return " ".join(value.split())
    return "unknown"


def facts(tools, root):
    """Named in the order in which they are told."""
    commit = said("git", "-C", str(root), "rev-parse", "--short", "HEAD")
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{field('/proc/cpuinfo', 'model name')}, {len(os.sched_getaffinity(0))} CPUs",
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": said("findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", tools.folder),
        "syncline": f"{commit}, {said('rustc', '--version')}",
        "programs": ", ".join(said(*command) for command in PROGRAMS.values()),
    }
