//! The memory limit, which is one for the whole process, and how a run divides it.

/// What the program takes without any rows: its code, the runtime, the catalog, and one task's decoders and encoders.
const BASE: u64 = 192 << 20;
/// What another task takes: a row group being decoded, and the files that it writes.
const TASK: u64 = 32 << 20;

/// Memory that a command may use when nothing else is set.
pub const DEFAULT_MEMORY_LIMIT: u64 = 512 << 20;
/// Less than this cannot hold the program and the buffers of one run.
pub const MIN_MEMORY_LIMIT: u64 = 256 << 20;

/// The shares of one run. Bytes, but for `tasks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    pub limit: u64,
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
        let beyond = limit.max(MIN_MEMORY_LIMIT) - BASE;
        // at most a quarter is for more tasks
        let tasks = usize::try_from(1 + beyond / 4 / TASK).unwrap_or(cores).clamp(1, cores.max(1));
        let rest = beyond - (tasks as u64 - 1) * TASK;
        Self { limit, tasks, hashes: rest / 16 * 9, query: rest / 4, spill: rest / 8 }
    }

    /// A limit at which the states of so many rows can be held.
    pub fn limit_for(rows: u64) -> u64 {
        // three quarters of what is beyond the base are left to all but the tasks
        BASE + (rows / 9 + 1) * 16 / 3 * 4 + (1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_never_exceed_the_limit() {
        for limit in [MIN_MEMORY_LIMIT, DEFAULT_MEMORY_LIMIT, 1 << 30, 8 << 30] {
            for cores in [1, 2, 8, 64] {
                let plan = MemoryPlan::new(limit, cores);
                assert!(plan.tasks >= 1 && plan.tasks <= cores);
                let tasks = BASE + (plan.tasks as u64 - 1) * TASK;
                assert!(tasks + plan.hashes + plan.query + plan.spill <= limit, "{plan:?}");
            }
        }
    }

    #[test]
    fn the_limit_that_is_asked_for_is_enough() {
        for rows in [1, 200_000_000, 3_000_000_000] {
            for cores in [1, 2, 64] {
                assert!(MemoryPlan::new(MemoryPlan::limit_for(rows), cores).hashes >= rows, "{rows} {cores}");
            }
        }
    }
}
