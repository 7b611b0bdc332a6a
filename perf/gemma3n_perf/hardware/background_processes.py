"""The programs that are known to spoil a measurement, by the names they run under, and what to do about each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gemma3n_perf.hardware.other_processes import OtherProcess


@dataclass(frozen=True, slots=True)
class BackgroundProcess:
    """A kind of program. ``cores`` is the CPU use, with that of what it started, from which on it disturbs."""

    code: str
    subject: str
    doing: str
    names: re.Pattern[str]
    cores: float
    remedy: str


def _any(*names: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{name})" for name in names))


# Names as the kernel keeps them: Linux cuts them at 15 characters, macOS gives the file's.
BACKGROUND_PROCESSES = (
    BackgroundProcess(
        "build",
        "builds",
        "something is being built",
        _any(
            r"(?:.*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|lld|ld\.\w+|as)(?:-[\d.]+)?",
            r"cc1|cc1plus|cc1obj|collect2|lto1|lto-wrapper|mold|nvcc|cicc|ptxas|cudafe\+\+|metal|metallib",
            r"g?make|ninja|cmake|meson|cargo|rustc|swiftc|swift-\w+|xcodebuild|ibtoold?|actool|ccache|sccache|javac|tsc",
        ),
        0.02,
        "wait for the build to end, or stop it",
    ),
    BackgroundProcess(
        "spotlight",
        "Spotlight",
        "Spotlight is indexing",
        _any(r"mds|mds_stores|mdworker\w*|mdbulkimport|mdsync|corespotlightd|spotlightknowledged"),
        0.05,
        "let it finish; on a machine that only measures: sudo mdutil -a -i off",
    ),
    BackgroundProcess(
        "backup",
        "backups",
        "a backup is running",
        _any(r"backupd(?:-helper)?", r"restic|borg|rsync|duplicity|rclone"),
        0.05,
        "let it finish; on a machine that only measures: sudo tmutil disable",
    ),
    BackgroundProcess(
        "housekeeping",
        "updates and indexing",
        "the system keeps house",
        _any(
            r"softwareupdated?|installd|XProtect\w*|photoanalysisd|mediaanalysisd|photolibraryd|cloudd|fileproviderd",
            r"apt|apt-get|dpkg|unattended-upgr|packagekitd|dnf|updatedb(?:\.\w+)?|tracker-miner-f|baloo_file|snapd",
        ),
        0.05,
        "let it finish, and move updates to hours in which nothing is measured",
    ),
)


def background_processes_running(kind: BackgroundProcess, busy: Sequence[OtherProcess]) -> tuple[OtherProcess, ...]:
    """Return the processes of this kind that used enough CPU to disturb, the busiest first."""
    return tuple(one for one in busy if kind.names.fullmatch(one.name) and one.family >= kind.cores)
