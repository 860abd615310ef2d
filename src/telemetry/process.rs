//! What the system says of this process. Linux only; elsewhere nothing is said.

/// Resident memory, in bytes.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processor time, user and system, in whole seconds.
pub fn cpu_seconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // the second field is the program's name in parentheses, and may hold anything
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // the unit is USER_HZ, which is 100 on every architecture that Linux presents to programs
    Some((user + system) / 100)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn memory_and_time_are_read() {
        assert!(super::resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(super::cpu_seconds().is_some());
    }
}
