//! What this machine gives to this process: processors and memory, as affinity and cgroups bound them.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Processors that this process may use at once: its affinity, and the quota of its cgroup (v1 or v2), rounded down, at
/// least 1.
#[must_use]
pub fn cpus() -> u32 {
    // The standard library looks at all three.
    std::thread::available_parallelism()
        .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX))
}

/// Bytes of memory that this process and its children may use together: the machine's, or the least limit of the cgroups it is in.
/// `None` where `/proc` does not say.
#[must_use]
pub fn memory() -> Option<u64> {
    let machine = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let limit = limit_files(&own, &mounts)
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min();
    Some(limit.map_or(machine, |limit: u64| machine.min(limit)))
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(
        line.trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<NonZero<u64>>()
            .ok()?
            .get()
            .saturating_mul(1024),
    )
}

/// The files that may hold a limit: those of this process's cgroup and of each above it.
fn limit_files(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        // `0::/path` in v2, `5:memory:/path` in v1.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (file_system, name) = match controllers {
            "" => ("cgroup2", "memory.max"),
            list if list.split(',').any(|c| c == "memory") => ("cgroup", "memory.limit_in_bytes"),
            _ => continue,
        };
        let Some((root, mount)) = mount_of(mounts, file_system) else {
            continue;
        };
        // In a container the mount may show only the part of the tree below `root`.
        let inside = Path::new(path)
            .strip_prefix(root)
            .unwrap_or(Path::new(path));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        files.extend(
            inside
                .ancestors()
                .map(|part| Path::new(mount).join(part).join(name)),
        );
    }
    files
}

/// Root and mount point of a cgroup file system; of v1, the one with the memory controller. See proc_pid_mountinfo(5).
fn mount_of<'a>(mounts: &'a str, file_system: &str) -> Option<(&'a str, &'a str)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1)?;
        if kind != file_system || (kind == "cgroup" && !options.split(',').any(|o| o == "memory")) {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        Some((left.next()?, left.next()?))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::sys::machine::{cpus, limit_files, memory, total};

    #[test]
    fn meminfo_is_in_kibibytes() {
        assert_eq!(
            total("MemTotal:        8052624 kB\nMemFree: 1 kB\n"),
            Some(8_052_624 * 1024)
        );
        assert_eq!(total("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn every_level_of_the_own_cgroup_may_hold_the_limit() {
        let mounts =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            limit_files("0::/user.slice/job\n", mounts),
            ["user.slice/job", "user.slice", ""]
                .map(|d| PathBuf::from("/sys/fs/cgroup").join(d).join("memory.max"))
        );
    }

    #[test]
    fn v1_takes_the_memory_hierarchy() {
        let mounts = "31 30 0:27 / /cg/cpu rw - cgroup cgroup rw,cpu\n32 30 0:28 /docker/x /cg/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(
            limit_files("4:memory:/docker/x\n3:cpu:/\n", mounts),
            [PathBuf::from("/cg/memory/memory.limit_in_bytes")]
        );
    }

    #[test]
    fn this_machine_has_some() {
        assert!(cpus() >= 1);
        assert!(
            memory().is_some_and(|bytes| bytes > 1 << 20),
            "{:?}",
            memory()
        );
    }
}
