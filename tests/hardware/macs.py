"""A Mac at rest, as the doctor asks it: recorded facts, and the commands' output in the form macOS gives it."""

from tests.hardware.replay import Machine

PS = "ps -Axo pid=,ppid=,time=,comm="
QUIET = """    1     0   0:30.11 /sbin/launchd
  100     1   0:01.00 /usr/local/bin/python3.12
  301     1  12:01.50 /System/Library/Frameworks/CoreServices.framework/Metadata.framework/Support/mds
  302     1   3:20.00 /System/Library/Frameworks/CoreServices.framework/Metadata.framework/Support/mds_stores
  400     1 102:11.25 /System/Library/PrivateFrameworks/SkyLight.framework/Resources/WindowServer
  500     1   0:02.00 /Applications/Some App.app/Contents/MacOS/Some App
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                             1000000.
Pages active:                            500000.
Pages inactive:                          400000.
Pages speculative:                        50000.
Pages throttled:                              0.
Pages wired down:                        200000.
Pages purgeable:                          10000.
File-backed pages:                       600000.
"Translation faults":                1234567890.
"""
DF = """Filesystem     1024-blocks      Used Available Capacity  Mounted on
/dev/disk3s5   971350180 500000000 450000000    53%    /System/Volumes/Data
"""
NO_BACKUP = """Backup session status:
{
    ClientID = "com.apple.backupd";
    Percent = "-1";
    Running = 0;
}
"""
# In the form that pypi.org/project/darwin-perf shows, read by the command that NVIDIA's nemo-relay runs (docs.rs); a
# process with two clients among them.
CLIENTS = """+-o AGXDeviceUserClient  <class AGXDeviceUserClient, id 0x1000010bd, !registered, !matched, active>
    {{
      "AppUsage" = ()
      "IOUserClientCreator" = "pid 443, WindowServer"
    }}

+-o AGXDeviceUserClient  <class AGXDeviceUserClient, id 0x1000010bf, !registered, !matched, active>
    {{
      "AppUsage" = ({{"API"="Metal","lastSubmittedTime"=18,"accumulatedGPUTime"={window_server}}},\
{{"API"="Metal","lastSubmittedTime"=0,"accumulatedGPUTime"=500}})
      "IOUserClientCreator" = "pid 443, WindowServer"
      "CommandQueueCount" = 2
    }}

+-o AGXDeviceUserClient  <class AGXDeviceUserClient, id 0x100001226, !registered, !matched, active>
    {{
      "AppUsage" = ({{"API"="Metal","lastSubmittedTime"=20,"accumulatedGPUTime"={ours}}})
      "IOUserClientCreator" = "pid 100, python3.12"
    }}

+-o AGXDeviceUserClient  <class AGXDeviceUserClient, id 0x100001230, !registered, !matched, active>
    {{
      "AppUsage" = ({{"API"="Metal","lastSubmittedTime"=20,"accumulatedGPUTime"={ollama}}})
      "IOUserClientCreator" = "pid 29493, ollama"
    }}
"""
PMSET = """System-wide power settings:
Currently in use:
 standby              1
 powernap             0
 disksleep            0
 sleep                0 (sleep prevented by caffeinate)
 powermode            0
"""


class Mac(Machine):
    """A recorded Mac that has run for three days. ``while_watched`` replaces what ps tells from the second look on."""

    def __init__(self, name: str = "m5-max") -> None:
        super().__init__(name, cpus=16)
        self.steal_s = None
        self.while_watched: str | None = None
        self.commands |= {
            PS: QUIET,
            "vm_stat": VM_STAT,
            "date +%s": "1790000000\n",
            "sysctl -n kern.boottime": "{ sec = 1789740800, usec = 123456 } Wed Sep 18 09:33:20 2026\n",
            "tmutil status": NO_BACKUP,
            "df -Pk /checkpoints": DF,
            "pmset -g": PMSET,
        }

    def _run(self, argv: object) -> str | None:
        output = super()._run(argv)
        if argv == ("ps", *PS.split()[1:]) and self.requests[PS] > 1 and self.while_watched is not None:
            return self.while_watched
        return output


def busy(name: str, seconds: float, pid: int = 900, parent: int = 1) -> str:
    """Return what ps tells after a new process has used so much CPU."""
    return f"{QUIET}{pid:5} {parent:5}   0:{seconds:05.2f} /somewhere/{name}\n"
