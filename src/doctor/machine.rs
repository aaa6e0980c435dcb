//! What this machine has of memory.

/// Bytes that a process may still take: what the system has free or can free, within the process's own limit. `None` where
/// the system does not say.
pub(super) fn memory() -> Option<u64> {
    memory_from(|path| std::fs::read_to_string(path).ok())
}

fn memory_from(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let info = read("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let available = kib.saturating_mul(1024);
    // The limit of the control group, where there is one: "max" is none.
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    Some(group.map_or(available, |limit| limit.min(available)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_free_memory_and_limit_counts() {
        let info = "MemTotal:       100 kB\nMemAvailable:    40 kB\n";
        let with = |limit: &'static str| {
            move |path: &str| match path {
                "/proc/meminfo" => Some(info.to_owned()),
                _ => Some(limit.to_owned()),
            }
        };
        assert_eq!(memory_from(with("max\n")), Some(40 * 1024));
        assert_eq!(memory_from(with("1000\n")), Some(1000));
        assert_eq!(memory_from(|_| None), None);
        assert_eq!(memory_from(|_| Some("MemAvailable: many".to_owned())), None);
    }
}
