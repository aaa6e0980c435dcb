//! How many threads suit this machine: one for each physical core of the fast kind that the process may use.
//!
//! Two threads of one core share its multipliers, and slow cores beside fast ones finish their last task late: both
//! cost more than they bring. Linux tells cores apart in files; elsewhere each processor that the process may use
//! counts. Whatever cannot be read or makes no sense is as if it were not there.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::num::NonZero;

/// Processors that the process may use, as affinity and cgroup quota say; threads of one core count each.
pub(super) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The number of threads to start where nobody says another: at least one, at most [`available`].
pub(crate) fn default_count() -> usize {
    if cfg!(any(target_os = "linux", target_os = "android")) {
        count(available(), |path| std::fs::read_to_string(path).ok())
    } else {
        available()
    }
}

/// The number of threads for a machine whose files are read by `read`, where `available` processors may be used at
/// a time: fewer than the affinity names where a cgroup has a quota.
fn count(available: usize, read: impl Fn(&str) -> Option<String>) -> usize {
    physical_cores(&read).map_or(available, |cores| cores.min(available)).max(1)
}

/// The physical cores of the fast kind among the processors that the calling thread may use.
fn physical_cores(read: &impl Fn(&str) -> Option<String>) -> Option<usize> {
    let status = read("/proc/thread-self/status")?;
    let allowed = list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let cores: Option<BTreeSet<String>> =
        fast(allowed, read).into_iter().map(|cpu| core(cpu, read)).collect();
    cores.map(|cores| cores.len()).filter(|&cores| cores != 0)
}

/// Those of `cpus` that are of the fast kind; all of them where there is only one kind.
fn fast(cpus: BTreeSet<usize>, read: &impl Fn(&str) -> Option<String>) -> BTreeSet<usize> {
    // Intel's hybrids have a file for each kind.
    let hybrid = read("/sys/devices/cpu_core/cpus").and_then(|text| list(&text)).unwrap_or_default();
    let performance: BTreeSet<usize> = cpus.intersection(&hybrid).copied().collect();
    if !performance.is_empty() {
        return performance;
    }
    // Arm's have a figure for each processor, 1024 for the fastest. Small cores stand at up to 530 (RK3588's).
    let capacity = |cpu: usize| -> Option<u64> {
        read(&format!("/sys/devices/system/cpu/cpu{cpu}/cpu_capacity"))?.trim().parse().ok()
    };
    let capacities: Option<Vec<(usize, u64)>> = cpus.iter().map(|&cpu| Some((cpu, capacity(cpu)?))).collect();
    let Some(capacities) = capacities else { return cpus };
    let highest = capacities.iter().map(|&(_, capacity)| capacity).max().unwrap_or(0);
    let near = |&(_, capacity): &(usize, u64)| capacity >= highest - highest / 5 * 2;
    capacities.into_iter().filter(near).map(|(cpu, _)| cpu).collect()
}

/// A name of the core that `cpu` is a thread of: the same for all its threads.
fn core(cpu: usize, read: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let topology = |file: &str| read(&format!("/sys/devices/system/cpu/cpu{cpu}/topology/{file}"));
    // The second is what kernels before 5.3 call the first.
    topology("core_cpus_list")
        .or_else(|| topology("thread_siblings_list"))
        .or_else(|| Some(format!("{}:{}", topology("physical_package_id")?, topology("core_id")?)))
}

/// The numbers in a list like `0-3,8`.
fn list(text: &str) -> Option<BTreeSet<usize>> {
    /// More processors than any kernel is built for: a longer list is damaged.
    const MOST: usize = 1 << 16;
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The files of a machine.
    #[derive(Default)]
    struct Machine(HashMap<String, String>);

    impl Machine {
        /// A machine whose processors `allowed` may be used.
        fn new(allowed: &str) -> Self {
            let status =
                format!("Name:\tgrist\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n");
            Machine::default().file("/proc/thread-self/status", &status)
        }

        fn file(mut self, path: &str, text: &str) -> Self {
            self.0.insert(path.into(), text.into());
            self
        }

        fn cpu_file(self, cpu: usize, file: &str, text: &str) -> Self {
            self.file(&format!("/sys/devices/system/cpu/cpu{cpu}/{file}"), &format!("{text}\n"))
        }

        /// Cores with these threads.
        fn cores(self, cores: &[&[usize]]) -> Self {
            let names = |core: &[usize]| core.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            cores
                .iter()
                .flat_map(|core| core.iter().map(move |&cpu| (cpu, names(core))))
                .fold(self, |machine, (cpu, names)| machine.cpu_file(cpu, "topology/core_cpus_list", &names))
        }

        fn count(&self, available: usize) -> usize {
            count(available, |path| self.0.get(path).cloned())
        }
    }

    const PAIRS: [&[usize]; 4] = [&[0, 4], &[1, 5], &[2, 6], &[3, 7]];

    #[test]
    fn two_threads_of_a_core_count_once() {
        assert_eq!(Machine::new("0-7").cores(&PAIRS).count(8), 4);
        let old = (0..8).fold(Machine::new("0-7"), |machine, cpu| {
            machine.cpu_file(cpu, "topology/physical_package_id", &(cpu / 4).to_string()).cpu_file(
                cpu,
                "topology/core_id",
                &(cpu % 2).to_string(),
            )
        });
        assert_eq!(old.count(8), 4, "two packages of two cores");
    }

    #[test]
    fn only_processors_that_may_be_used_count() {
        assert_eq!(Machine::new("1,4-5").cores(&PAIRS).count(3), 2);
        assert_eq!(Machine::new("3,7").cores(&PAIRS).count(2), 1);
    }

    #[test]
    fn a_quota_is_kept() {
        assert_eq!(Machine::new("0-7").cores(&PAIRS).count(3), 3);
        assert_eq!(Machine::new("0-7").cores(&PAIRS).count(1), 1);
    }

    #[test]
    fn performance_cores_of_a_hybrid_count() {
        // Two fast cores of two threads each, four slow ones.
        let cores: [&[usize]; 6] = [&[0, 1], &[2, 3], &[4], &[5], &[6], &[7]];
        let hybrid =
            |allowed| Machine::new(allowed).cores(&cores).file("/sys/devices/cpu_core/cpus", "0-3\n");
        assert_eq!(hybrid("0-7").count(8), 2);
        assert_eq!(hybrid("4-6").count(3), 3, "there is nothing faster to wait for");
    }

    #[test]
    fn cores_of_low_capacity_do_not_count() {
        let cores: Vec<[usize; 1]> = (0..8).map(|cpu| [cpu]).collect();
        let cores: Vec<&[usize]> = cores.iter().map(|core| &core[..]).collect();
        let machine = |allowed, capacities: [u64; 8]| {
            let machine = Machine::new(allowed).cores(&cores);
            capacities
                .iter()
                .enumerate()
                .fold(machine, |machine, (cpu, c)| machine.cpu_file(cpu, "cpu_capacity", &c.to_string()))
        };
        assert_eq!(machine("0-7", [530, 530, 530, 530, 1024, 1024, 1024, 1024]).count(8), 4);
        assert_eq!(machine("0-7", [250, 250, 250, 250, 800, 800, 800, 1024]).count(8), 4);
        assert_eq!(machine("0-3", [530, 530, 530, 530, 1024, 1024, 1024, 1024]).count(4), 4);
        assert_eq!(machine("0-7", [1024; 8]).count(8), 8);
        assert_eq!(machine("0-7", [0; 8]).count(8), 8);
    }

    #[test]
    fn what_is_missing_or_damaged_leaves_what_the_process_may_use() {
        assert_eq!(Machine::default().count(6), 6);
        assert_eq!(Machine::new("0-7").count(8), 8, "no topology");
        assert_eq!(Machine::new("0-8").cores(&PAIRS).count(9), 9, "one processor without topology");
        for damaged in ["", "x", "0-", "-", "3-1", "0-99999999999", "0-18446744073709551615", "1,,x"] {
            assert_eq!(Machine::new(damaged).cores(&PAIRS).count(5), 5, "{damaged:?}");
        }
        assert_eq!(Machine::new("0-7").cores(&PAIRS).file("/sys/devices/cpu_core/cpus", "?").count(8), 4);
        assert_eq!(Machine::new("0-7").cores(&PAIRS).cpu_file(3, "cpu_capacity", "fast").count(8), 4);
        assert_eq!(Machine::default().count(0), 1);
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!((1..=available()).contains(&default_count()));
    }
}
