//! The memory limit, which is one for the whole process, and how a run divides it.

/// What the program takes without any rows: its code, the runtime, the catalog, and one task's decoders and encoders.
const BASE: u64 = 192 << 20;
/// What another task takes: a row group being decoded, and the files that it writes.
const TASK: u64 = 64 << 20;

/// Memory that a command may use when nothing else is set.
pub const DEFAULT_MEMORY_LIMIT: u64 = 512 << 20;
/// Less than this cannot hold the program and the buffers of one run.
pub const MIN_MEMORY_LIMIT: u64 = BASE + TASK;

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
        let tasks = usize::try_from(beyond / TASK).unwrap_or(cores).clamp(1, cores.max(1));
        Self { limit, tasks, hashes: beyond / 2, query: beyond / 4, spill: beyond / 8 }
    }

    /// The limit that the states of so many rows need.
    pub fn limit_for(rows: u64) -> u64 {
        BASE + 2 * rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_never_exceed_the_limit() {
        for limit in [MIN_MEMORY_LIMIT, DEFAULT_MEMORY_LIMIT, 8 << 30] {
            for cores in [1, 2, 64] {
                let plan = MemoryPlan::new(limit, cores);
                let further_tasks = (plan.tasks as u64 - 1) * TASK / 8;
                assert!(plan.tasks >= 1 && plan.tasks <= cores);
                assert!(BASE + plan.hashes + plan.query + plan.spill + further_tasks <= limit, "{plan:?}");
            }
        }
        assert_eq!(MemoryPlan::new(MemoryPlan::limit_for(1 << 40), 2).hashes, 1 << 40);
    }
}
