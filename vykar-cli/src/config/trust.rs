//! Which of the configurations that are found, and not named, may be used.
//!
//! `./vykar.yaml` lies in a folder that may be anybody's, and what it says is run: root would run it for them.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Group, User};

use crate::render;

/// Permission bits with which others than the owner may write.
const GROUP_MAY_WRITE: u32 = 0o020;
const OTHERS_MAY_WRITE: u32 = 0o002;
/// Where the kernel keeps an ACL; the group's permission bits are its mask then.
const ACL: &str = "system.posix_acl_access";

/// Opens the configuration at `path`; `None` when there is none, or none that may be used, which stderr says.
///
/// # Errors
/// There is one, and it cannot be opened or looked at.
pub fn open(path: &Path) -> std::io::Result<Option<File>> {
    // Opening a FIFO in its place would wait for a writer; regular files know no such thing.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(e),
    };
    let Some(why) = doubt(path, &file)? else { return Ok(Some(file)) };
    if is_first(path) {
        let shown = render::path(path);
        say!("{shown} is not used: {why}; if you trust it, name it: --config {shown}");
    }
    Ok(None)
}

/// True the first time it is asked about a path: some commands look for the configuration twice.
fn is_first(path: &Path) -> bool {
    static TOLD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = !told.iter().any(|known| known == path);
    told.push(path.to_owned());
    is_first
}

/// Why somebody else may have written what is in the file that was opened at `path`.
fn doubt(path: &Path, file: &File) -> std::io::Result<Option<String>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Some("it is not a regular file".to_owned()));
    }
    if let Some(why) = doubt_of(&meta, || has_acl(file)) {
        return Ok(Some(format!("it {why}")));
    }
    // That of the link as well, where it is one.
    for path in [path.to_owned(), path.canonicalize()?] {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let opened = File::open(folder)?;
        if let Some(why) = doubt_of(&opened.metadata()?, || has_acl(&opened)) {
            return Ok(Some(format!("its folder {why}")));
        }
    }
    Ok(None)
}

/// Why others than the caller and root may have written something.
fn doubt_of(meta: &Metadata, has_acl: impl FnOnce() -> bool) -> Option<String> {
    let caller = nix::unistd::geteuid();
    if meta.uid() != 0 && meta.uid() != caller.as_raw() {
        let owner = User::from_uid(meta.uid().into()).ok().flatten().map(|user| user.name);
        let owner = owner.unwrap_or_else(|| format!("user {}", meta.uid()));
        return Some(format!("belongs to {}", render::plain(owner.as_bytes())));
    }
    let group_may = meta.mode() & GROUP_MAY_WRITE != 0 && (!is_own_group(meta.gid().into()) || has_acl());
    (group_may || meta.mode() & OTHERS_MAY_WRITE != 0)
        .then(|| "can be written by others (chmod go-w)".to_owned())
}

/// True for a group with the caller as its only member, as many systems make one for each user.
fn is_own_group(group: Gid) -> bool {
    let (Ok(Some(group)), Ok(Some(user))) = (Group::from_gid(group), User::from_uid(nix::unistd::geteuid()))
    else {
        return false;
    };
    group.gid == user.gid && group.name == user.name && group.mem.iter().all(|member| *member == user.name)
}

fn has_acl(file: &File) -> bool {
    let mut none: [u8; 0] = [];
    rustix::fs::fgetxattr(file, ACL, &mut none).is_ok_and(|length| length > 0)
}
