//! Mounts of this program among the sources: what they show is in a repository already, many times over.

/// The type that mounts of repositories have in `/proc/self/mountinfo`.
pub const MOUNT_TYPE: &str = "fuse.vykar";
/// Why such a mount is left out.
pub const REASON: &str = "a repository is mounted there; to store something of it, name a folder inside it";

/// True when a repository is mounted as this device. Where nobody knows, it is not.
pub fn is_repository(dev: u64) -> bool {
    std::fs::read("/proc/thread-self/mountinfo").is_ok_and(|table| is_listed(&table, dev))
}

fn is_listed(table: &[u8], dev: u64) -> bool {
    let number = format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    table.split(|c| *c == b'\n').any(|line| {
        // Optional fields end with a dash, and the type is behind it. Spaces in names are escaped.
        let mut fields = line.split(|c| *c == b' ');
        fields.nth(2) == Some(number.as_bytes())
            && fields.find(|field| *field == b"-").is_some()
            && fields.next() == Some(MOUNT_TYPE.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_known_by_their_device_and_type() {
        let table = b"24 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw\n\
            61 1 0:51 / /home/me/\\040mnt ro,nosuid - fuse.vykar /srv/fuse.vykar ro,user_id=0\n\
            62 1 0:52 / /home/me/x rw shared:1 master:2 - fuse.sshfs fuse.vykar rw\n\
            63 1 8:1 /a - rw - ext4 /dev/sda1 rw\n\n";
        let dev = |minor| rustix::fs::makedev(0, minor);
        assert!(is_listed(table, dev(51)));
        assert!(!is_listed(table, dev(22)) && !is_listed(table, dev(52)) && !is_listed(table, dev(53)));
        assert!(!is_listed(b"", dev(51)) && !is_listed(b"61 1 0:51", dev(51)));
        assert!(!is_repository(rustix::fs::stat("/proc").unwrap().st_dev));
    }
}
