"""Every bar at its real size, one scenario after another: what `make bench` runs.

Some ten minutes on two cores; a machine that does other things at the same time makes times
worse, CPU figures hardly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

BARS: Final[dict[str, tuple[str, ...]]] = {
    "fan-out, loaded": (
        "fanout", "--viewers=1000", "--rate=300", "--seconds=10",
        "--assert=server_cpu_us_per_delivered<=2.0", "--assert=p99_ms<=150",
    ),
    "fan-out, idle": (
        "fanout", "--viewers=1000", "--rate=5", "--seconds=10",
        "--assert=first_viewer_p50_ms<=5", "--assert=last_viewer_p50_ms<=30",
    ),
    "beside the floor": (
        "peers", "--only=floor", "--only=liveroom", "--viewers=1000", "--rate=5", "--seconds=10",
        "--assert=liveroom_x_floor<=1.7",
    ),
    "large room": (
        "large_room", "--viewers=15000", "--rate=20", "--processes=2", "--assert=p99_ms<=1500",
        "--assert=reply_p99_ms<=150",
    ),
    "memory": ("idle", "--viewers=5000", "--assert=server_kb_per_viewer<=30"),
    "herd": (
        "reconnect_herd", "--viewers=10000", "--processes=2", "--assert=all_back_s<=15",
    ),
    "slow viewers": (
        "slow_viewers", "--viewers=1000", "--stuck=1000", "--assert=p99_ratio<=1.5",
        "--assert=server_kb_per_stuck<=256", "--assert=kernel_kb_max<=131.1",
    ),
    "chat storm": ("chat_storm", "--assert=logged_p99_ms<=150"),
    "holds": ("holds", "--holds=60000", "--assert=holds_per_s>=30000"),
    "flash drop": (
        "drop", "--buyers=2000", "--units=10000", "--processes=2", "--assert=orders_per_s>=2500",
    ),
    "flash drop, open": (
        "drop", "--buyers=2000", "--units=10000", "--rate=1000", "--assert=p99_ms<=500",
    ),
    "selling to a large room": (
        "drop", "--buyers=500", "--units=4000", "--rate=200", "--watchers=15000", "--apart",
        "--assert=p99_ms<=150",
    ),
    "sold-out storm": ("storm", "--assert=refusals_per_s>=10000"),
    "killed": ("kill", "--assert=normal_s<=10"),
    "workers": (
        "workers", "--assert=fanout_ratio<=1.25", "--assert=drop_ratio<=1.25",
    ),
    "growth": (
        "growth", "--assert=viewers_ratio<=1.05", "--assert=events_ratio<=1.05",
        "--assert=rooms_ratio<=1.1",
    ),
}  # fmt: skip


def run(main: Callable[[Sequence[str]], int], only: Sequence[str], console: Console) -> int:
    """Every bar, or those named in `only`; 0 when all of them hold."""
    codes: dict[str, int] = {}
    for name, words in BARS.items():
        if not only or name in only:
            console.rule(name)
            codes[name] = main(words)
    table = Table("bar", "holds", "command")
    for name, code in codes.items():
        verdict = "yes" if code == 0 else "[bold red]no[/]"
        table.add_row(name, verdict, " ".join(("liveroom bench", *BARS[name])))
    console.print(table)
    return max(codes.values(), default=2)
