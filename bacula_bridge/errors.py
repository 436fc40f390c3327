"""What can go wrong between Forebay and a Bacula installation, each with its sentence.

Covers: finding or fetching Bacula's programs, the private lab, the Director client, the catalog,
bootstrap files and the rendering of configuration.
Does not cover: the stream protocol and the plugin, which speak through the job log.
"""

from __future__ import annotations

from shards.errors import ForebayError, UsageError


class BadValue(UsageError):
    """A value that cannot stand in a Bacula configuration or command: (what, value, rule)."""

    template = "{0} {1!r} cannot be used: {2}"


class ProgramsMissing(ForebayError):
    """Bacula's programs are neither installed nor to be had on this machine: (why)."""

    template = (
        "no Bacula 15 is installed and none can be fetched here: {0}; install Bacula 15 "
        "(bacula-dir, bacula-sd, bacula-fd, bconsole, SQLite catalog), or "
        "run this on Debian 12 or 13"
    )


class NoMirror(ForebayError):
    """This machine's apt sources name no Debian archive: (folder)."""

    template = (
        "no Debian archive is enabled in {0}; set FOREBAY_DEBIAN_MIRROR to the address of a "
        "Debian mirror that has trixie"
    )


class NoKeyring(ForebayError):
    """The keys that sign Debian trixie are not on this machine: (where)."""

    template = (
        "the keys that sign Debian trixie are missing ({0}); install or upgrade the package "
        "debian-archive-keyring"
    )


class DownloadFailed(ForebayError):
    """apt-get could not fetch the packages: (step, apt's last words)."""

    template = (
        "fetching Bacula's packages failed at {0}: {1}; check the network, or set "
        "FOREBAY_DEBIAN_MIRROR, and run the same command again"
    )


class ProvisioningFailed(ForebayError):
    """What was fetched could not be made usable: (step, reason)."""

    template = "Bacula's programs could not be set up at {0}: {1}; free space or fix it and retry"


class LockTimeout(ForebayError):
    """Another process holds a lock for longer than we wait: (lock file, seconds)."""

    template = "another process has held {0} for {1:.0f} s; wait for it to end, then run this again"


class DaemonFailed(ForebayError):
    """A daemon of the lab did not come up: (name, last words, log file)."""

    template = "{0} of the private Bacula did not come up: {1} (log: {2})"


class DaemonStuck(ForebayError):
    """A daemon of the lab does not end, not even by SIGKILL: (name, pid)."""

    template = "{0} (process {1}) does not end; it hangs in the kernel: see its state in ps"


class PortsTaken(ForebayError):
    """The ports that were picked were taken by others every time: (attempts)."""

    template = (
        "no free loopback ports could be had in {0} attempts; see `ss -ltn` for what takes them"
    )


class LabNotRunning(ForebayError):
    """The lab is not up: (folder)."""

    template = "the private Bacula in {0} is not running; start it with `forebay lab up`"


class LabUnusable(ForebayError):
    """The lab's folder or a file in it cannot be made or written: (folder, reason)."""

    template = "the private Bacula's folder {0} cannot be used: {1}; free space or choose another"


class LabBusy(ForebayError):
    """A daemon has to be restarted, but jobs are running: (what, number of jobs)."""

    template = "{0} needs a restart of the private Bacula, but {1} job(s) run; wait for their end"


class ConfigurationRefused(ForebayError):
    """The Director does not accept a configuration: (file, the Director's words)."""

    template = "the Director refuses {0}: {1}"


class ConsoleFailed(ForebayError):
    """bconsole could not talk to the Director: (reason)."""

    template = (
        "bconsole could not reach the Director: {0}; see that it runs, and that this is its"
        " bconsole's configuration (`forebay lab status`, or `forebay bacula check` at a site)"
    )


class ConsoleTimeout(ForebayError):
    """The Director did not answer in time: (seconds, last words)."""

    template = "the Director did not answer within {0:.0f} s (last words: {1})"


class JobRefused(ForebayError):
    """The Director did not start a job: (job, the Director's words)."""

    template = "the Director did not start job {0}: {1}"


class JobsTimeout(ForebayError):
    """Jobs did not end in time: (JobIds, seconds)."""

    template = (
        "job(s) {0} did not end within {1:.0f} s; `forebay lab console` with `status dir` "
        "tells what they wait for"
    )


class CatalogUnavailable(ForebayError):
    """The catalog could not be read: (file, reason)."""

    template = "the catalog {0} cannot be read: {1}"


class BootstrapImpossible(ForebayError):
    """The catalog does not say where the wanted files lie: (JobId, reason)."""

    template = "no bootstrap file can be made for JobId {0}: {1}"
