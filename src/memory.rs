//! The memory limit, which is one for the whole process, and how a run divides it.

/// What the program takes without any run: its code, the runtime, the catalog.
const PROCESS: u64 = 160 << 20;
/// What a task takes: a row group being decoded, and the files that it writes.
const TASK: u64 = 32 << 20;
/// A run with less than this beyond its first task is of no use.
const LEAST_SHARE: u64 = 16 << 20;

/// Memory that a command may use when nothing else is set.
pub const DEFAULT_MEMORY_LIMIT: u64 = 512 << 20;
/// Less than this cannot hold the program and the buffers of one run.
pub const MIN_MEMORY_LIMIT: u64 = 256 << 20;

/// The shares of one run. Bytes, but for `tasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Of the whole process.
    pub limit: u64,
    /// How many runs there may be at once. All other figures are those of one of them.
    pub runs: usize,
    /// How many tasks convert, compare and write at once.
    pub tasks: usize,
    /// For the state of each old row, and the hashes of as many as fit.
    pub hashes: u64,
    /// For the operators of an embedded warehouse's query.
    pub query: u64,
    /// For rows that are gathered until they are worth writing to a spill, over all tasks.
    pub spill: u64,
}

impl MemoryPlan {
    /// Divides `limit`, which is at least [`MIN_MEMORY_LIMIT`], on a machine with so many cores.
    pub fn new(limit: u64, cores: usize) -> Self {
        Self::for_runs(limit, cores, 1)
    }

    /// Divides `limit` so that as many runs at once stay within it together. There are fewer of them
    /// ([`MemoryPlan::runs`]) where the limit has no room for so many.
    pub fn for_runs(limit: u64, cores: usize, runs: usize) -> Self {
        let all = limit.max(MIN_MEMORY_LIMIT) - PROCESS;
        let most = usize::try_from(all / (TASK + LEAST_SHARE)).unwrap_or(runs);
        let runs = runs.clamp(1, most.max(1));
        let beyond = all / runs as u64 - TASK;
        // at most a quarter is for more tasks
        let tasks = usize::try_from(1 + beyond / 4 / TASK).unwrap_or(cores).clamp(1, cores.max(1));
        let rest = beyond - (tasks as u64 - 1) * TASK;
        Self { limit, runs, tasks, hashes: rest / 16 * 9, query: rest / 4, spill: rest / 8 }
    }

    /// A limit at which each of so many runs at once can hold the states of so many rows.
    pub fn limit_for(rows: u64, runs: usize) -> u64 {
        // three quarters of what is beyond the base are left to all but the tasks
        PROCESS + runs.max(1) as u64 * (TASK + (rows / 9 + 1) * 16 / 3 * 4 + (1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_never_exceed_the_limit() {
        for limit in [MIN_MEMORY_LIMIT, DEFAULT_MEMORY_LIMIT, 1 << 30, 8 << 30] {
            for cores in [1, 2, 8, 64] {
                for runs in [1, 2, 3, 8, 100] {
                    let plan = MemoryPlan::for_runs(limit, cores, runs);
                    assert!(plan.tasks >= 1 && plan.tasks <= cores);
                    assert!(plan.runs >= 1 && plan.runs <= runs);
                    let one = plan.tasks as u64 * TASK + plan.hashes + plan.query + plan.spill;
                    assert!(PROCESS + plan.runs as u64 * one <= limit, "{plan:?}");
                }
            }
        }
    }

    #[test]
    fn a_limit_without_room_for_so_many_runs_has_fewer() {
        assert_eq!(MemoryPlan::for_runs(DEFAULT_MEMORY_LIMIT, 2, 2).runs, 2);
        assert_eq!(MemoryPlan::for_runs(MIN_MEMORY_LIMIT, 2, 2).runs, 2);
        assert_eq!(MemoryPlan::for_runs(MIN_MEMORY_LIMIT, 2, 8).runs, 2);
        assert_eq!(MemoryPlan::for_runs(DEFAULT_MEMORY_LIMIT, 2, 0).runs, 1);
        assert_eq!(MemoryPlan::for_runs(DEFAULT_MEMORY_LIMIT, 4, 1), MemoryPlan::new(DEFAULT_MEMORY_LIMIT, 4));
    }

    #[test]
    fn the_limit_that_is_asked_for_is_enough() {
        for rows in [1, 200_000_000, 3_000_000_000] {
            for cores in [1, 2, 64] {
                for runs in [1, 2, 8] {
                    let plan = MemoryPlan::for_runs(MemoryPlan::limit_for(rows, runs), cores, runs);
                    assert!(plan.hashes >= rows, "{rows} {cores} {runs}: {plan:?}");
                }
            }
        }
    }
}
