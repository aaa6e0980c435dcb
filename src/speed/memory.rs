//! How much memory there is, and how much of it the process has taken: where the system tells, which is Linux.
#![forbid(unsafe_code)]

/// The machine's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What the process may use at most: the machine's, or what its control group is limited to.
    pub total: u64,
    /// What can be had without swapping, caches of files that could go counted in.
    pub available: u64,
}

/// The most memory that the process has held at once so far, pages of mapped files among it; `None` where the system does
/// not tell.
pub fn peak() -> Option<u64> {
    kibibytes(&read("/proc/self/status")?, "VmHWM:")
}

impl Memory {
    /// This machine's; `None` where the system does not tell.
    pub fn of_this_machine() -> Option<Self> {
        Self::from_files(read)
    }

    fn from_files(read: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let about = read("/proc/meminfo")?;
        let (total, available) = (kibibytes(&about, "MemTotal:")?, kibibytes(&about, "MemAvailable:")?);
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        // The group of the process where it has a name space of its own, as containers have.
        let Some(limit) = number("/sys/fs/cgroup/memory.max").filter(|&limit| limit < total) else {
            return Some(Memory { total, available });
        };
        let left = limit.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0));
        Some(Memory { total: limit, available: available.min(left) })
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The line `name` of a file of `/proc`: `VmHWM:      1234 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str =
        "MemTotal:       24684000 kB\nMemFree:          100 kB\nMemAvailable:   23000000 kB\n";

    fn memory(limit: Option<&str>, current: Option<&str>) -> Option<Memory> {
        Memory::from_files(|path| match path {
            "/proc/meminfo" => Some(ABOUT.to_owned()),
            "/sys/fs/cgroup/memory.max" => limit.map(str::to_owned),
            "/sys/fs/cgroup/memory.current" => current.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn memory_is_the_machines_or_what_the_group_may_have() {
        let all = Memory { total: 24_684_000 << 10, available: 23_000_000 << 10 };
        assert_eq!(memory(None, None), Some(all));
        assert_eq!(memory(Some("max\n"), Some("5\n")), Some(all));
        let limited = Memory { total: 1 << 30, available: (1 << 30) - 4096 };
        assert_eq!(memory(Some("1073741824\n"), Some("4096\n")), Some(limited));
        assert_eq!(Memory::from_files(|_| None), None);
    }

    #[test]
    fn a_line_that_is_none_gives_nothing() {
        assert_eq!(kibibytes("VmHWM:\t  12 kB\n", "VmHWM:"), Some(12 << 10));
        for text in ["", "VmHWM: kB", "VmHWM: 12", "VmHWM: 99999999999999999999 kB"] {
            assert_eq!(kibibytes(text, "VmHWM:"), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_touched_counts() {
        let before = peak().unwrap();
        let memory = vec![1_u8; 64 << 20];
        let after = peak().unwrap();
        assert!(memory.iter().map(|&byte| u64::from(byte)).sum::<u64>() == 64 << 20 && after >= 64 << 20);
        assert!(after >= before);
    }
}
