"""Studies for tests of the page: hostile names and values, and one that is large."""

import json

from tests.test_report import leave_run

HOSTILE = [
    '<img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    "{{ 7*7 }}{% raw %}\u2028\u2029'\"`${window.hacked=1}",
    "javascript:window.hacked=1",
    "\x1b[2J\x07\u202egnp.exe\x00"[:-1],
]


def leave_hostile(folder):
    """Four runs whose names, values, logs and certificate are all meant to be taken for something else."""
    for number, text in enumerate(HOSTILE):
        name = text.replace("/", "\u2215")
        run = leave_run(folder / f"{number}{name}", 1 + number // 2, 10.0 * number, env=text, algorithm__lr=text)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for n, row in enumerate(rows):
            row[f"learn/{text}"] = n
            row["__proto__"] = n
            row["constructor"] = -n
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "train.log").write_text(f"[x][hsw][ERROR] - {text}\nTraceback (most recent call last):\n{text}\n")
        (run / "status.json").write_text(json.dumps({"status": "failed" if number == 3 else "done", "error": text}))
        (run / "versions.json").write_text(json.dumps({"hsw": text, text: text, "command": ["/a/hsw/train.py", text]}))
        (run / "verified.json").write_text(json.dumps({"verified": number < 2, text: [{text: text}]}))
        (run / f"step-1{name}.mp4").write_bytes(b"\0" * 2_000_000)
    return folder


def leave_large(folder, runs=100, rows=1000, metrics=30):
    """Groups of five seeds."""
    for number in range(runs):
        run = leave_run(folder / f"{number}", number % 5, 1.0, rows=1, algorithm__lr=number // 5)
        lines = []
        for n in range(1, rows + 1):
            row = {"step": 1000 * n // rows, "time": n / 7}
            row |= {f"learn/metric_{m}": (n * (m + 1) * 0.6180339887 + number) % 1.0 for m in range(metrics - 1)}
            row["train/episode_return"] = n / rows + number // 5
            lines.append(json.dumps(row))
        lines.append(json.dumps({"step": 1000, "time": rows / 7, "eval/return_mean": 1.0 + number // 5}))
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder
