//! Who asks.

use std::fs;
use std::path::PathBuf;

/// The capability `CAP_SYS_ADMIN`, as a bit.
const SYS_ADMIN: u64 = 1 << 21;
/// The first user namespace, whose number never changes (`PROC_USER_INIT_INO`).
const FIRST_NAMESPACE: &str = "user:[4026531837]";
/// Attributes of this kind are for those who administer the machine.
pub(crate) const TRUSTED: &[u8] = b"trusted.";

/// True when the kernel lets this thread read attributes of the kind `trusted.`: with `CAP_SYS_ADMIN` in the
/// first user namespace. False where that cannot be found out.
pub(crate) fn may_read_trusted(thread: u32) -> bool {
    let at = PathBuf::from(format!("/proc/{thread}"));
    let is_first = || fs::read_link(at.join("ns/user")).is_ok_and(|name| name.as_os_str() == FIRST_NAMESPACE);
    let status = fs::read_to_string(at.join("status")).unwrap_or_default();
    capabilities(&status).is_some_and(|all| all & SYS_ADMIN != 0) && is_first()
}

/// The effective capabilities in a `/proc/PID/status`.
fn capabilities(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_found() {
        assert_eq!(capabilities("Name:\tx\nCapEff:\t0000000000200001\nCapBnd:\t1\n"), Some(SYS_ADMIN | 1));
        assert_eq!(capabilities("CapPrm:\t1\nCapEff:\tnonsense\n"), None);
        assert!(!may_read_trusted(0), "of another process namespace");
        let (mine, root) = (may_read_trusted(std::process::id()), rustix::process::geteuid().is_root());
        assert!(!mine || root);
    }
}
